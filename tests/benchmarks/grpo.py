"""A step of our GRPO against TRL's own trainer: the same model, prompts, reward and settings.

    python tests/benchmarks/grpo.py --rounds 5

Both train in turns in one process on one thread. Prints the median CPU seconds per step of each and
their ratio, which should be at most 1.05, and where our step's time goes.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
STEPS = 6
SHAPE = {"hidden_size": 256, "layers": 6}
SETTINGS = {"per_device_batch_size": 16, "num_generations": 8, "max_completion_length": 48}


def answers(samples):
    return [len(set(sample.completion)) / 10 for sample in samples]


def ours(model: Path, folder: Path):
    from rollouts import make, place, spec

    from aligntune.train.policy import TRAINERS

    wanted = spec("grpo", max_steps=STEPS, learning_rate=1e-5, beta=0.0, **SETTINGS)
    setting = place(folder)
    return wanted, setting, make(TRAINERS["grpo"], model, wanted, setting)


def theirs(trainer, model: Path):
    """TRL's trainer with the very arguments and prompts of ours."""
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    from aligntune.models.load import load_policy, load_tokenizer

    made = GRPOTrainer(
        model=load_policy(model, trust_remote_code=False),
        args=trainer.args,
        reward_funcs=list(trainer.reward_funcs),
        train_dataset=trainer.train_dataset,
        processing_class=load_tokenizer(model),
    )
    made.remove_callback(PrinterCallback)
    return made


def measured(model: Path, rounds: int) -> dict[str, object]:
    from rollouts import curve

    from aligntune.train.loop import fit

    seconds: dict[str, list[float]] = {"ours": [], "trl": []}
    spent: dict[str, list[float]] = {}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            wanted, setting, trainer = ours(model, Path(name))
            other = theirs(trainer, model)
            turns = {
                "ours": lambda t=trainer, w=wanted, s=setting: fit(t, w, s, rows=16),
                "trl": other.train,
            }
            order = sorted(turns, reverse=bool(number % 2))
            for side in order:
                began = time.process_time()
                turns[side]()
                seconds[side].append((time.process_time() - began) / STEPS)
            for part in ("generate", "reward", "score", "update"):
                spent.setdefault(part, []).extend(curve(setting, f"train/time/{part}")[1:])
    medians = {side: statistics.median(each) for side, each in seconds.items()}
    parts = {part: statistics.median(each) for part, each in spent.items()}
    return {"seconds": medians, "ratio": medians["ours"] / medians["trl"], "parts": parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    sys.path[:0] = [str(TESTS)]
    import torch
    from tiny import build_tiny_model

    import aligntune.train.judge

    torch.set_num_threads(1)
    aligntune.train.judge.scorer = lambda reward: answers
    with tempfile.TemporaryDirectory() as name:
        model = build_tiny_model(Path(name) / "model", **SHAPE)
        sys.stdout.write(json.dumps(measured(model, rounds), indent=2) + "\n")


if __name__ == "__main__":
    main()
