"""A training stage's config in a test: whatever is not asked for is off."""

from aligntune.config.slices import TrainSlice

PLAIN = {
    "rewards": (),
    "peft": None,
    "precision": "fp32",
    "gradient_checkpointing": False,
    "attn_implementation": None,
    "quantization": None,
    "use_unsloth": False,
    "trust_remote_code": False,
    "processes": 1,
    "seed": 1,
    "load_best": None,
    "save_steps": 2,
    "eval_steps": None,
    "loggers": (),
    "sample_logging": None,
}


def train_slice(algo, train, **changes):
    """A TrainSlice with the resolved hyper-parameters `train`."""
    return TrainSlice(algo=algo, train=train, **PLAIN | changes)
