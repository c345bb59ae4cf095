"""Online training in a test: a spec, a trainer, a run, and its curves."""

import random
from pathlib import Path

import torch
from slices import train_slice
from tokens import trained_on

from aligntune.config.presets import resolved
from aligntune.config.rewards import Reward
from aligntune.config.train import Train
from aligntune.journal import read
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.train.loop import fit

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


def letters(samples):
    """The share of an answer's characters that are small letters."""
    return [sum("a" <= c <= "z" for c in s.completion) / max(len(s.completion), 1) for s in samples]


def varied(samples):
    """A tenth of the number of different characters of an answer."""
    return [len(set(sample.completion)) / 10 for sample in samples]


def digits(samples):
    """The last digit of an answer, from 0 to 1."""
    found = [[c for c in s.completion if c.isdigit()] for s in samples]
    return [int(numbers[-1]) / 9 if numbers else 0.0 for numbers in found]


def teach_sums(start: Path, path: Path) -> Path:
    """`path`, now the model in `start` after it learned to add up some digits before it answers
    with any."""
    model, tokenizer = load_policy(start, trust_remote_code=False), load_tokenizer(start)
    optimizer, draw = torch.optim.AdamW(model.parameters(), lr=1e-2), random.Random(0)
    for _ in range(150):
        rows = []
        for row in draw.choices(ROWS, k=16):
            a, b, c = (draw.randrange(10) for _ in range(3))
            answer = {"role": "assistant", "content": f"{a} + {b} = {c}\n#### {c}"}
            rows.append(tokenizer.apply_chat_template([*row["prompt"], answer], tokenize=False))
        batch = tokenizer(rows, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
