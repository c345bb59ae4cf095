"""Online training in a test: a spec, a trainer, a run, and its curves."""

from pathlib import Path

from slices import train_slice
from tokens import trained_on

from aligntune.config.presets import resolved
from aligntune.config.rewards import Reward
from aligntune.config.train import Train
from aligntune.journal import read
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.train.loop import Setting, fit

WORDS = ("red", "blue", "sun", "moon", "tree", "sky", "cat", "dog")
ROWS = [
    {"prompt": [{"role": "user", "content": f"{verb} {word}"}], "answer": word}
    for verb in ("say", "tell")
    for word in WORDS
]


TOY = (Reward(reward_type="toy"),)


def spec(algo, peft=None, rewards=TOY, save_steps=100, eval_steps=None, **train):
    settings = {
        "per_device_batch_size": 16,
        "max_steps": 30,
        "learning_rate": 1e-2,
        "max_completion_length": 8,
        "lr_scheduler_type": "constant",
    } | train
    return train_slice(
        algo,
        resolved(Train(**settings), algo, peft, 128),
        rewards=rewards,
        peft=peft,
        save_steps=save_steps,
        eval_steps=eval_steps,
    )


def place(folder: Path, stopping=lambda: False) -> Setting:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return Setting(folder, folder / "work", "key", lambda *shown: None, stopping)


def make(build, path, spec, setting, rows=ROWS, heldout=None):
    measured = trained_on(heldout, spec, path) if heldout else None
    policy = load_policy(path, trust_remote_code=False)
    data = trained_on(rows, spec, path)
    return build(policy, load_tokenizer(path), data, measured, spec, setting)


def run(build, path, spec, setting, rows=ROWS, heldout=None):
    """The trainer, trained."""
    trainer = make(build, path, spec, setting, rows, heldout)
    fit(trainer, spec, setting, rows=len(rows))
    return trainer


def curve(setting, name="train/reward"):
    rows = read(setting.out / "metrics.jsonl")
    return [row.metrics[name] for row in rows if name in row.metrics]


def gain(setting):
    """Mean reward of the last quarter of a run, less that of the first."""
    rewards = curve(setting)
    n = len(rewards) // 4
    return (sum(rewards[-n:]) - sum(rewards[:n])) / n
