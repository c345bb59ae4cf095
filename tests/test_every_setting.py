"""Every setting outside `train` changes what is planned, and no setting is forgotten here.

That each hyper-parameter reaches its trainer is in train/test_every_key.py.
"""

import copy
from functools import reduce

import pytest
from pydantic import BaseModel

from aligntune.config.base import identity
from aligntune.config.run import RunConfig
from aligntune.config.train import Train
from aligntune.pipeline import steps

BASE = {
    "algo": "ppo",
    "model": {"name_or_path": "owner/model", "precision": "fp32"},
    "datasets": [{"name": "owner/data"}],
    "rewards": [{"reward_type": "length"}],
    "peft": {"r": 16},
    "sft": {"datasets": [{"name": "owner/chats"}]},
    "reward_model": {"datasets": [{"name": "owner/pairs"}]},
    "evaluation": {"lm_eval": {"tasks": ["hellaswag"]}},
    "sample_logging": {},
}
TRAINED = ("ppo", "sft")
WITH_REWARD = (*TRAINED, "reward")
PREPARED = ("sft-data", "data", "reward-data")
MEASURED = ("evaluate-base", "evaluate-sft", "evaluate-ppo")
DECIDED = (*MEASURED, "decide")
NEUTRAL = "neutral"
EFFECTS = {
    "algo": ("dpo", ("dpo",), "algo"),
    "seed": (7, (*PREPARED, *WITH_REWARD, *DECIDED), "seed"),
    "model.name_or_path": ("owner/other", ("model", "tokenizer"), "name_or_path"),
    "model.sft_path": ("./tuned", ("model", "tokenizer"), "name_or_path"),
    "model.revision": ("v2", ("model", "tokenizer"), "revision"),
    "model.chat_template": ("{{ messages }}", ("model", "tokenizer"), "chat_template"),
    "model.trust_remote_code": (True, ("model", *WITH_REWARD, *MEASURED), "trust_remote_code"),
    "model.precision": ("bf16", (*WITH_REWARD, *MEASURED), "precision"),
    "model.max_seq_length": (99, WITH_REWARD, "train.max_length"),
    "model.gradient_checkpointing": (False, WITH_REWARD, "gradient_checkpointing"),
    "model.attn_implementation": ("eager", WITH_REWARD, "attn_implementation"),
    "model.quantization": ("4bit", TRAINED, "quantization"),
    "model.use_unsloth": (True, TRAINED, "use_unsloth"),
    "model.reward_path": ("owner/judge", ("ppo", *MEASURED), "rewards.1.model_name"),
    "reward_model.name_or_path": ("owner/base", ("reward-base",), "name_or_path"),
    "reward_model.revision": ("v2", ("reward-base",), "revision"),
    "reward_model.objective": ("regression", ("reward",), "objective"),
    "reward_model.datasets": ([{"name": "owner/more"}], ("reward-data",), "datasets.0.name"),
    "reward_model.train": ({"max_steps": 3}, ("reward",), "train.max_steps"),
    "reward_model.peft": ({"r": 3}, ("reward",), "peft.r"),
    "reward_model.normalize": (False, ("ppo", *MEASURED), "rewards.1.params"),
    "datasets.0.name": ("owner/else", ("data",), "datasets.0.name"),
    "datasets.0.subset": ("main", ("data",), "datasets.0.subset"),
    "datasets.0.split": ("test", ("data",), "datasets.0.split"),
    "datasets.0.revision": ("v2", ("data",), "datasets.0.revision"),
    "datasets.0.percent": (50.0, ("data",), "datasets.0.percent"),
    "datasets.0.max_samples": (5, ("data",), "datasets.0.max_samples"),
    "datasets.0.task_type": ("prompt", ("data",), "datasets.0.task_type"),
    "datasets.0.columns": ({"prompt": "text"}, ("data",), "datasets.0.columns"),
    "datasets.0.weight": (2.0, ("data",), "datasets.0.weight"),
    "datasets.0.format": ("alpaca", ("data",), "datasets.0.format"),
    "datasets.0.streaming": (True, ("data",), "datasets.0.streaming"),
    "datasets.0.eval_fraction": (0.5, ("data",), "datasets.0.eval_fraction"),
    "datasets.0.eval_split": ("test", ("data",), "datasets.0.eval_split"),
    "cleaning.on_invalid": ("error", PREPARED, "cleaning.on_invalid"),
    "cleaning.max_invalid": (0.5, PREPARED, "cleaning.max_invalid"),
    "cleaning.duplicates": ("row", PREPARED, "cleaning.duplicates"),
    "cleaning.near_duplicates": (0.8, PREPARED, "cleaning.near_duplicates"),
    "cleaning.decontaminate": (8, PREPARED, "cleaning.decontaminate"),
    "cleaning.too_long": ("drop", PREPARED, "cleaning.too_long"),
    "mix.repeat": (True, PREPARED, "mix.repeat"),
    "launch.data_workers": (3, PREPARED, NEUTRAL),
    "launch.processes": (2, WITH_REWARD, "processes"),
    "datasets.0.params": ({"count": 3}, ("data",), "datasets.0.params"),
    "rewards.0.reward_type": ("safety", ("ppo", *MEASURED), "rewards.0.reward_type"),
    "rewards.0.weight": (2.0, ("ppo", *MEASURED), "rewards.0.weight"),
    "rewards.0.scale": ("zscore", ("ppo", *MEASURED), "rewards.0.scale"),
    "rewards.0.clip_low": (0.5, ("ppo", *MEASURED), "rewards.0.clip_low"),
    "rewards.0.clip_high": (0.5, ("ppo", *MEASURED), "rewards.0.clip_high"),
    "rewards.0.gate": (True, ("ppo", *MEASURED), "rewards.0.gate"),
    "rewards.0.params": ({"min_length": 1}, ("ppo", *MEASURED), "rewards.0.params"),
    "rewards.0.model_name": ("owner/judge", ("ppo", *MEASURED), "rewards.0.model_name"),
    "rewards.0.on_error": ("skip", ("ppo", *MEASURED), "rewards.0.on_error"),
    "rewards.0.error_value": (2.0, ("ppo", *MEASURED), "rewards.0.error_value"),
    "rewards.0.timeout": (9.0, ("ppo", *MEASURED), "rewards.0.timeout"),
    "rewards.0.device": ("cpu", ("ppo", *MEASURED), NEUTRAL),
    "peft.r": (4, WITH_REWARD, "peft.r"),
    "peft.alpha": (4, WITH_REWARD, "peft.alpha"),
    "peft.dropout": (0.1, ("sft", "reward"), "peft.dropout"),
    "peft.target_modules": (("q_proj",), WITH_REWARD, "peft.target_modules"),
    "peft.merge": (False, ("push",), "adapter_of"),
    "sft.datasets": ([{"name": "owner/more"}], ("sft-data",), "datasets.0.name"),
    "sft.train": ({"max_steps": 3}, ("sft",), "train.max_steps"),
    "sft.peft": ({"r": 3}, ("sft",), "peft.r"),
    "evaluation.datasets": ([{"name": "owner/test"}], ("eval-data",), "datasets.0.name"),
    "evaluation.heldout_fraction": (0.3, PREPARED, "heldout_fraction"),
    "evaluation.max_samples": (3, MEASURED, "max_samples"),
    "evaluation.metrics": (("nll",), MEASURED, "metrics"),
    **{
        f"evaluation.lm_eval.{name}": (value, MEASURED, f"lm_eval.{name}")
        for name, value in {
            "tasks": ("piqa",), "include_path": "./tasks", "limit": 3, "num_fewshot": 2,
            "apply_chat_template": False,
        }.items()
    },
    "evaluation.max_new_tokens": (3, MEASURED, "max_new_tokens"),
    "evaluation.batch_size": (3, MEASURED, "batch_size"),
    "evaluation.confidence": (0.9, DECIDED, "confidence"),
    "evaluation.resamples": (300, DECIDED, "resamples"),
    "registry.name": ("mine", ("register", "promote"), "name"),
    "registry.promote": ("manual", ("promote",), "policy"),
    "registry.gates": ([{"metric": "nll", "min_delta": 0.1}], ("decide",), "gates.0.min_delta"),
    "logging.push_to_hub": (True, ("push",), "hub_model_id"),
    "logging.hub_model_id": ("me/it", ("push",), "hub_model_id"),
    "logging.hub_private": (False, ("push",), "private"),
    "logging.hub_license": ("mit", ("push",), "license"),
    "retrain.approval": ("required", ("promote",), "policy"),
    "logging.save_steps": (7, WITH_REWARD, NEUTRAL),
    "logging.eval_steps": (7, WITH_REWARD, NEUTRAL),
    "logging.loggers": (("wandb",), WITH_REWARD, NEUTRAL),
    "logging.report_to": (("wandb",), WITH_REWARD, NEUTRAL),
    **{
        f"sample_logging.{name}": (value, TRAINED, NEUTRAL)
        for name, value in {
            "enabled": False, "num_samples": 1, "max_new_tokens": 3, "interval_steps": 3,
            "percent_of_max_steps": 0.1, "prompts": ("Hi",), "temperature": 0.0, "top_p": 0.5,
        }.items()
    },
}  # fmt: skip
"""setting -> (another value, the stages whose config it changes, where it is there)."""
SEEN = {
    "retrain.approval": "manual",
    "sft.datasets": "owner/more",
    "sft.train": 3,
    "sft.peft": 3,
    "reward_model.datasets": "owner/more",
    "reward_model.train": 3,
    "reward_model.peft": 3,
    "reward_model.normalize": {"normalize": False},
    "evaluation.datasets": "owner/test",
    "registry.name": "mine.policy",
    "registry.gates": 0.1,
    "logging.push_to_hub": "me/model",
    "peft.merge": "owner/model",
}
"""What the stage has where that is not the value itself."""
ELSEWHERE = {
    "logging.output_dir",  # paths: test_paths.py
    "logging.run_name",
    "logging.sweep",  # integration/test_sweep.py
    "registry.enabled",  # test_pipeline.py
    "logging.level",  # integration/test_cli.py
    "logging.load_best",  # train/test_policy.py; not for online algorithms
    "launch.mode",  # integration/test_cli.py
    "launch.concurrent",  # flows/test_together.py
    "launch.timeout",  # test_launch.py
    "launch.hang_timeout",
    "evaluation.sample_count",  # the report: test_report.py
    *(f"train.{name}" for name in Train.model_fields),
}


APART = {
    "retrain": {"start_from": "champion"},
    "deployment": {"name": "other", "pool": "gpu", "triggers": [{"event": "data.published"}]},
    "schedules": [{"cron": "0 3 * * *", "set": {"train.max_steps": 3}}],
    "notifications": [{"block": "slack-webhook/team"}],
}
"""Sections about when a run is repeated: flows/ tests what each of their settings does."""
SECTIONS = ("sft", "reward_model")
"""Whose settings are taken as a whole."""


def leaves(kind, path=""):
    for name, field in kind.model_fields.items():
        inner = _section(field.annotation)
        listed = "tuple" in str(field.annotation)
        if inner and not listed and inner.__name__ != "Train" and name not in SECTIONS:
            yield from leaves(inner, f"{path}{name}.")
        elif inner and listed and not path:
            yield from leaves(inner, f"{path}{name}.0.")
        elif name in SECTIONS:
            yield from (f"{name}.{key}" for key in inner.model_fields)
        elif name == "train":
            yield from (f"train.{key}" for key in inner.model_fields)
        else:
            yield path + name


def _section(annotation):
    found = [annotation, *getattr(annotation, "__args__", ())]
    return next((k for k in found if isinstance(k, type) and issubclass(k, BaseModel)), None)


def changed(key, value):
    settings = copy.deepcopy(BASE)
    at = settings
    *path, last = key.split(".")
    for step in path:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    at[last] = value
    return settings


def planned(settings):
    if settings.get("logging", {}).keys() & {"push_to_hub", "hub_private", "hub_license"}:
        settings["logging"] |= {"push_to_hub": True}
        settings["logging"].setdefault("hub_model_id", "me/model")
    if settings["model"].get("reward_path"):
        del settings["reward_model"]
    if settings.get("reward_model", {}).get("revision"):
        settings["reward_model"]["name_or_path"] = "owner/base"
    if not settings["peft"].get("merge", True):
        settings["logging"] = {"hub_model_id": "me/model"}
    if settings.get("logging", {}).get("hub_model_id"):
        settings["logging"]["push_to_hub"] = True
    config = RunConfig.model_validate(settings)
    made = steps(config, tracking_uri="local", hub_endpoint="https://hub")
    return {step.label: step.config for step in made}


def at(config, path):
    return reduce(
        lambda value, step: value[int(step)] if step.isdecimal() else getattr(value, step),
        path.split("."),
        config,
    )


def test_no_setting_is_forgotten():
    every = set(leaves(RunConfig))
    found = {leaf for leaf in every if leaf.split(".")[0] not in APART} | EFFECTS.keys() & every
    assert found == EFFECTS.keys() | ELSEWHERE


@pytest.mark.parametrize("section", APART)
def test_when_a_run_is_repeated_changes_no_stage(section):
    before = planned(copy.deepcopy(BASE))
    assert planned(changed(section, APART[section])) == before


def test_dropout_changes_no_stage_that_trains_without_it():
    before, after = planned(copy.deepcopy(BASE)), planned(changed("peft.dropout", 0.1))
    assert after["ppo"] == before["ppo"]


@pytest.mark.parametrize("key", EFFECTS)
def test_a_setting_changes_the_stages_that_it_is_for(key):
    value, labels, where = EFFECTS[key]
    before, after = planned(copy.deepcopy(BASE)), planned(changed(key, value))
    for label in labels:
        if where == NEUTRAL:
            assert after[label] != before[label]
            assert identity(after[label]) == identity(before[label]), "it changes no result"
        else:
            assert at(after[label], where) == SEEN.get(key, value)
            assert after[label] != before.get(label)
