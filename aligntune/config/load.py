"""YAML in, `RunConfig` out, and back. The only place that reads a config file or an override.

Local paths in a config stay as they are written: like the paths on a command line they are
relative to the directory that the command runs in, not to the config file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from aligntune.config import rules, scalar
from aligntune.config.document import read_document
from aligntune.config.environment import escaped
from aligntune.config.naming import KeyPath
from aligntune.config.problems import Place, explain, together
from aligntune.config.repair import Repair
from aligntune.config.run import RunConfig
from aligntune.config.settings import Settings
from aligntune.errors import ConfigError


@dataclass(frozen=True)
class Loaded:
    config: RunConfig
    repairs: tuple[Repair, ...]
    """What was not read as it stands, file by file."""
    places: Mapping[KeyPath, Place]
    """Where each key was set last; its keys are what was given. `()` is the last file's top."""


def load(paths: Sequence[Path], overrides: Sequence[str] = ()) -> RunConfig:
    """The config that the files make together, later ones over earlier ones, then `a.b=value`s.

    Sections merge key by key; lists and plain values are replaced whole. `${NAME}` in a value is
    the environment's variable. `logging.run_name` is the last file's name where none is given.
    Everything wrong comes in one ConfigError, a line each.
    """
    return read(paths, overrides).config


def read(paths: Sequence[Path], overrides: Sequence[str] = ()) -> Loaded:
    """What `load` gives, with where each setting was made and what had to be repaired."""
    if not paths:
        raise ConfigError("no config file given; name at least one")
    settings = Settings({}, {})
    repairs: list[Repair] = []
    for index, path in enumerate(paths):
        document = read_document(path)
        settings = settings.merged(document, index)
        repairs += document.repairs
    for index, override in enumerate(overrides, start=len(paths)):
        settings = settings.overridden(override, index)
    config = _named(_validated(settings), paths[-1].stem)
    return Loaded(config, tuple(repairs), settings.places)


def dump(config: RunConfig) -> str:
    """`config` with all its defaults as YAML that loads to an equal config."""
    return yaml.dump(
        _escaped(config.model_dump(mode="json")),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
    )


def _validated(settings: Settings) -> RunConfig:
    try:
        config = RunConfig.model_validate(settings.values)
    except ValidationError as error:
        raise explain(error, settings.values, settings.places) from None
    if problems := rules.problems(config):
        raise together(problems, settings.places)
    return config


def _named(config: RunConfig, stem: str) -> RunConfig:
    if config.logging.run_name is not None:
        return config
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:64] or "run"
    logging = config.logging.model_copy(update={"run_name": name})
    return config.model_copy(update={"logging": logging})


def _escaped(value: Any) -> Any:
    """`value` with the texts in it, but not the keys, as a file has to have them."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escaped(value) if isinstance(value, str) else value


class _Dumper(yaml.SafeDumper):
    """Writes scalars so that readers of YAML 1.1 and 1.2 agree on them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Readers turn these line breaks into "\n" unless they are written as escapes.
    foreign = any(c in text for c in "\r\x85\u2028\u2029")
    style = '"' if foreign else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _write_float(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", repr(number))


_Dumper.add_representer(str, _write_text)
_Dumper.add_representer(float, _write_float)
# Beside the words and numbers of YAML 1.1, which are there already: `5e-5` as text needs quotes.
for _tag, _pattern in {"int": scalar.INT, "float": scalar.FLOAT}.items():
    _Dumper.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern.pattern})\Z"), None
    )
