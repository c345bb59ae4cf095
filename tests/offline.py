"""SFT and DPO in a test: rows, a spec, a trainer, and what comes of it."""

from slices import PLAIN, train_slice
from tokens import trained_on

from aligntune.config.presets import resolved
from aligntune.config.train import Train
from aligntune.data.rows import prompt_of
from aligntune.models.load import load_tokenizer
from aligntune.models.trainable import load_trainable
from aligntune.train.dpo import dpo_trainer
from aligntune.train.loop import fit, within
from aligntune.train.samples import Asked
from aligntune.train.sft import sft_trainer

WORDS = ("red", "blue", "sun", "moon", "tree", "sky", "cat", "dog")
ROWS = {
    "sft": [
        {
            "messages": [
                {"role": "user", "content": f"say {word}"},
                {"role": "assistant", "content": f"{word} it is"},
            ]
        }
        for word in WORDS
    ],
    "dpo": [
        {
            "prompt": [{"role": "user", "content": f"say {word}"}],
            "chosen": [{"role": "assistant", "content": f"{word} yes"}],
            "rejected": [{"role": "assistant", "content": f"{word} no"}],
        }
        for word in WORDS
    ],
}
BUILD = {"sft": sft_trainer, "dpo": dpo_trainer}


def spec(algo="sft", peft=None, **changes):
    """A TrainSlice: `changes` are of its own fields, or else of `train`."""
    settings = {
        "per_device_batch_size": 2,
        "max_steps": 6,
        "learning_rate": 1e-3,
        "max_length": 64,
    } | {name: value for name, value in changes.items() if name not in PLAIN}
    own = {name: value for name, value in changes.items() if name in PLAIN}
    return train_slice(algo, resolved(Train(**settings), algo, peft, 64), peft=peft, **own)


def make(path, chosen, setting, rows=None):
    policy = load_trainable(path, chosen)
    data = trained_on(rows or ROWS[chosen.algo], chosen, path)
    chosen = within(chosen, policy)
    return BUILD[chosen.algo](policy, load_tokenizer(path), data, None, chosen, setting)


def run(path, chosen, setting, rows=None):
    """The trainer, trained; the prompts of its rows are there to be answered."""
    trainer = make(path, chosen, setting, rows)
    data = rows or ROWS[chosen.algo]
    asked = [Asked(prompt_of(row)) for row in data]
    fit(trainer, chosen, setting, len(trainer.train_dataset), asked)
    return trainer
