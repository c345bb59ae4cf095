"""A first config for an algorithm, made of the settings' own descriptions."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from aligntune.config.algo import ALGOS, ONLINE, named
from aligntune.config.base import descriptions
from aligntune.config.presets import resolved, used
from aligntune.config.run import RunConfig
from aligntune.config.train import Peft, Train
from aligntune.errors import ConfigError, unknown

MODEL = "HuggingFaceTB/SmolLM2-360M-Instruct"
DATA = {"sft": "tatsu-lab/alpaca", "dpo": "Anthropic/hh-rlhf"}
PROMPTS = "openai/gsm8k"
SECTIONS = ("model", "datasets", "train", "peft", "evaluation", "logging")
"""Those that are written and not only mentioned; so are the rewards of online algorithms."""
LISTS = ("datasets", "rewards", "schedules", "notifications")


def initial(algo: str, file: Path) -> str:
    """YAML that runs `algo` as it stands; every other setting is there as `#key: default`.

    Raises ConfigError for an unknown algorithm.
    """
    name = named(algo)
    if name not in ALGOS:
        raise ConfigError(unknown("algorithm", algo, ALGOS))
    lines = [f"# aligntune train --config {file}", "", f"algo: {name}"]
    for section in RunConfig.model_fields:
        # An sft before sft is refused.
        if section not in ("algo", "seed") and (section, name) != ("sft", "sft"):
            lines += ["", *_section(section, name)]
    return "\n".join([*lines, "", "seed: 42"]) + "\n"


def _section(name: str, algo: Any) -> list[str]:
    kind = _kind(RunConfig, name)
    said = descriptions(RunConfig).get(name) or " ".join((kind.__doc__ or "").split())
    lines = [*_explained(said, ""), f"{name}:", *_body(name, kind, algo)]
    if name in SECTIONS or (name == "rewards" and algo in ONLINE):
        return lines
    return [line if line.lstrip().startswith("#") else _off(line) for line in lines]


def _off(line: str) -> str:
    text = line.lstrip()
    return f"{line.removesuffix(text)}#{text}"


def _body(name: str, kind: type[BaseModel], algo: Any) -> list[str]:
    if name == "train":
        live = {"per_device_batch_size": 8, "max_steps": 200}
        given = resolved(Train(**live), algo, Peft(), 2048)
        defaults = {key: getattr(given, key) for key in Train.model_fields if key in used(algo)}
        return [*_settings(Train, live, _plain(defaults), "  ")]
    live = _live(name, algo)
    defaults = {
        key: field.get_default(call_default_factory=True)
        for key, field in kind.model_fields.items()
        if key not in live
    }
    if name not in LISTS:
        return [*_settings(kind, live, _plain(defaults), "  ")]
    body = list(_settings(kind, live, _plain(defaults), "    "))
    first = next(i for i, line in enumerate(body) if not line.lstrip().startswith("#"))
    # The item's dash goes before its first key, and what explains that above it.
    head, item = body[:first], body[first]
    return [*head, "  - " + item.lstrip(), *body[first + 1 :]]


def _live(section: str, algo: Any) -> dict[str, Any]:
    """What is written of a section, or would be if the section was."""
    data: dict[str, Any] = {"name": DATA.get(algo, PROMPTS)}
    if data["name"] == PROMPTS:
        data["subset"] = "main"
    return {
        "model": {"name_or_path": MODEL},
        "datasets": data,
        "peft": {"r": 16, "alpha": 32},
        "rewards": {"reward_type": "math"},
        "sft": {"datasets": [{"name": DATA["sft"]}], "train": {"max_steps": 200}},
        "reward_model": {"datasets": [{"name": DATA["dpo"]}], "train": {"max_steps": 200}},
        "schedules": {"cron": "0 3 * * *"},
        "notifications": {"block": "slack-webhook/team"},
        "evaluation": {"max_samples": 256},
        "logging": {"output_dir": "./output"},
    }.get(section, {})


def _settings(
    kind: type[BaseModel], live: Mapping[str, Any], defaults: Mapping[str, Any], indent: str
) -> Iterator[str]:
    said = descriptions(kind)
    for key in kind.model_fields:
        if key not in live and key not in defaults:
            continue
        yield from _explained(said[key], indent)
        value = live.get(key, defaults.get(key))
        yield f"{indent}{'' if key in live else '#'}{key}: {_inline(value)}"


def _explained(text: str, indent: str) -> list[str]:
    before, width = f"{indent}# ", 96 - len(indent)
    return textwrap.wrap(
        text, width, initial_indent=before, subsequent_indent=before, break_on_hyphens=False
    )


def _inline(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same as YAML can hold."""
    return {
        key: value.model_dump(mode="json")
        if isinstance(value, BaseModel)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in values.items()
    }


def _kind(section: type[BaseModel], name: str) -> type[BaseModel]:
    """The model of a section, or of the items of a list of them."""
    annotation = section.model_fields[name].annotation
    found = [annotation, *get_args(annotation)]
    return next(kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseModel))
