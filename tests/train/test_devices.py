"""A process trains on one GPU, however many it sees."""

from functools import cached_property

import offline
import pytest
import rollouts
import torch
from places import place
from slices import train_slice
from tokens import trained_on
from transformers import TrainingArguments
from trl import SFTConfig

from aligntune.config.presets import resolved
from aligntune.config.train import Train
from aligntune.models.head import load_scorer
from aligntune.models.load import load_tokenizer
from aligntune.models.trainable import load_trainable
from aligntune.train.dpo import reference_trainer
from aligntune.train.loop import configured
from aligntune.train.policy import TRAINERS


@pytest.fixture
def two_gpus(monkeypatch):
    """What transformers makes of them for one process, while the rest stays on the CPU."""
    found = vars(TrainingArguments)["_setup_devices"].func

    def two(arguments):
        device = found(arguments)
        arguments._n_gpu = 2
        return device

    seen = cached_property(two)
    seen.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", seen)


def made(name, path, setting):
    if name == "grpo":
        return rollouts.make(TRAINERS[name], path, rollouts.spec(name), setting)
    if name in ("sft", "dpo"):
        return offline.make(path, offline.spec(name), setting)
    algo = "reward" if name == "reward" else "dpo"
    spec = train_slice(algo, resolved(Train(), algo, None, 64))
    rows, tokenizer = trained_on(offline.ROWS["dpo"], spec, path), load_tokenizer(path)
    if name == "reward":
        return TRAINERS[name](load_scorer(path, spec), tokenizer, rows, None, spec, setting)
    return reference_trainer(load_trainable(path, spec), tokenizer, rows, spec, setting)


@pytest.mark.parametrize("name", ["sft", "dpo", "reward", "grpo", "reference"])
def test_every_trainer_takes_one_of_two(tiny_model, tmp_path, monkeypatch, two_gpus, name):
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: rollouts.letters)
    assert TrainingArguments(output_dir=str(tmp_path), use_cpu=True).n_gpu == 2
    trainer = made(name, tiny_model, place(tmp_path))
    assert trainer.args.n_gpu == 1


def test_transformers_counts_them_where_one_is_taken(tmp_path, monkeypatch):
    """`configured` and the tests above stand on a private attribute."""
    given = {"output_dir": str(tmp_path), "bf16": False, "activation_checkpointing": False}
    with monkeypatch.context() as patch:
        for name, answer in {"is_available": True, "device_count": 2, "set_device": None}.items():
            patch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
        assert SFTConfig(**given).n_gpu == 2
        assert configured(SFTConfig, **given).n_gpu == 1
    assert configured(SFTConfig, **given, use_cpu=True).n_gpu == 0
