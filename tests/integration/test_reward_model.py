"""A policy that optimises a reward model which was trained here, and what that makes of held-out
prompts."""

from pathlib import Path

import pytest
from rollouts import curve, place
from slices import train_slice
from tokens import write_split

from aligntune.config.presets import resolved
from aligntune.config.rewards import Reward
from aligntune.config.train import Train
from aligntune.evaluate.scorer import measure
from aligntune.train.policy import train_policy
from aligntune.train.scores import extras, scores

HH = Path(__file__).parents[3] / "shared/hub/datasets/Anthropic/hh-rlhf/harmless-base"
WORDS = ("red", "blue", "sun", "moon", "tree", "sky", "cat", "dog")
HELD_OUT = ("story", "number", "mat", "good")


def asked(word):
    return [{"role": "user", "content": f"say {word}"}]


def said(text):
    return [{"role": "assistant", "content": text}]


def preferring(words):
    """Pairs in which letters are better than digits."""
    return [
        {"prompt": asked(word), "chosen": said(good), "rejected": said(bad)}
        for word in words
        for good, bad in (("the cat sat", "12 30 42"), ("a red tree", "7 7 7 7"), ("yes no", "9"))
    ]


def trained(rows, heldout, model, root, **settings):
    """A reward model, made from `model`, and its metrics."""
    root.mkdir()
    folder = write_split(root / "data", rows, "preference", model, "train")
    write_split(folder, heldout, "preference", model, "heldout")
    peft = settings.pop("peft", None)
    spec = train_slice("reward", resolved(Train(**settings), "reward", peft, 96), peft=peft)
    spec = spec.model_copy(update={"objective": "bradley_terry", "save_steps": 1000})
    made = place(root / "out")
    train_policy(spec, model, folder, made)
    path = made.out / "model"
    return path, measure(path, folder, spec, lambda p: scores(extras(p)), lambda *_: None).metrics


@pytest.mark.slow
def test_ppo_raises_the_learned_score_on_prompts_that_it_was_not_trained_on(tiny_model, tmp_path):
    judge, metrics = trained(
        preferring(WORDS) * 2, preferring(HELD_OUT), tiny_model, tmp_path / "judge",
        per_device_batch_size=8, max_steps=60, learning_rate=3e-3, max_length=64,
    )  # fmt: skip
    assert metrics["accuracy"] > 0.9
    folder = tmp_path / "prompts"
    for split, words in (("train", WORDS), ("heldout", HELD_OUT)):
        write_split(
            folder, [{"prompt": asked(word)} for word in words], "prompt", tiny_model, split
        )
    hyper = Train(
        per_device_batch_size=16, max_steps=160, learning_rate=1e-2, max_completion_length=8,
        lr_scheduler_type="constant", kl_coef=0.0, temperature=1.0,
    )  # fmt: skip
    rewards = (Reward(reward_type="model", model_name=str(judge)),)
    spec = train_slice(
        "ppo", resolved(hyper, "ppo", None, 128), rewards=rewards, save_steps=1000, eval_steps=4
    )
    made = place(tmp_path / "ppo")
    train_policy(spec, tiny_model, folder, made)
    held_out = curve(made, "eval/reward")
    first, last = sum(held_out[:3]) / 3, sum(held_out[-3:]) / 3
    assert last > first + 0.5 * metrics["score_std"], (first, last)
