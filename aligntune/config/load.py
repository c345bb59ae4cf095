"""YAML in, `RunConfig` out, and back. The only place that reads a config file or an override.

Local paths in a config stay as they are written: like the paths on a command line they are
relative to the directory that the command runs in, not to the config file.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from aligntune.config import scalar
from aligntune.config.document import (
    MAX_DEPTH,
    Document,
    KeyPath,
    parse_value,
    printable,
    read_document,
)
from aligntune.config.problems import Place, dotted, explain, given
from aligntune.config.run import RunConfig
from aligntune.errors import ConfigError


def load(paths: Sequence[Path], overrides: Sequence[str] = ()) -> RunConfig:
    """The config that the files make together, later ones over earlier ones, then `a.b=value`s.

    Sections merge key by key; lists and plain values are replaced whole. `logging.run_name` is the
    last file's name where none is given. Everything wrong comes in one ConfigError, a line each.
    """
    if not paths:
        raise ConfigError("no config file given; name at least one")
    settings = _Settings({}, {})
    for index, path in enumerate(paths):
        settings = _merged(settings, read_document(path), index)
    for index, override in enumerate(overrides, start=len(paths)):
        settings = _overridden(settings, override, index)
    return _named(_validated(settings), paths[-1].stem)


def dump(config: RunConfig) -> str:
    """`config` with all its defaults as YAML that loads to an equal config."""
    return yaml.dump(
        config.model_dump(mode="json"),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
    )


@dataclass(frozen=True)
class _Settings:
    values: dict[str, Any]
    places: Mapping[KeyPath, Place]
    """Where each key was set last."""

    def replaced(
        self, values: dict[str, Any], gone: set[KeyPath], new: Mapping[KeyPath, Place]
    ) -> "_Settings":
        """With `values`, and without the places of what stood at or below the `gone` paths."""
        kept = {
            path: place
            for path, place in self.places.items()
            if not any(path[:size] in gone for size in range(1, len(path) + 1))
        }
        return _Settings(values, kept | dict(new))


def _validated(settings: _Settings) -> RunConfig:
    try:
        return RunConfig.model_validate(settings.values)
    except ValidationError as error:
        raise explain(error, settings.values, settings.places) from None


def _named(config: RunConfig, stem: str) -> RunConfig:
    if config.logging.run_name is not None:
        return config
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:64] or "run"
    logging = config.logging.model_copy(update={"run_name": name})
    return config.model_copy(update={"logging": logging})


def _merged(settings: _Settings, document: Document, index: int) -> _Settings:
    new = {
        path: Place(index, mark.line, mark.column, f"{document.source}:{mark.line}:{mark.column}")
        for path, mark in document.marks.items()
    }
    gone = set(_collisions(settings.values, document.values, ()))
    return settings.replaced(_over(settings.values, document.values), gone, new)


def _over(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _over(old[key], value)
        for key, value in new.items()
        if isinstance(value, dict) and isinstance(old.get(key), dict)
    }
    return {**old, **new, **both}


def _collisions(old: Mapping[str, Any], new: Mapping[str, Any], path: KeyPath) -> Iterator[KeyPath]:
    """The paths at which `_over` puts a new value in place of an old one."""
    for key in old.keys() & new.keys():
        if isinstance(old[key], dict) and isinstance(new[key], dict):
            yield from _collisions(old[key], new[key], (*path, key))
        else:
            yield (*path, key)


def _overridden(settings: _Settings, override: str, index: int) -> _Settings:
    source = f"--set {printable(override[:80])}"
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals:
        raise ConfigError(f"{source}: there is no '='; write section.key=value")
    if not all(keys) or len(keys) > MAX_DEPTH:
        raise ConfigError(f"{source}: {name[:80]!r} is no key; write section.key=value")
    value = parse_value(text, source)
    values, path = _put(settings.values, keys, value, (), source)
    place = Place(index, 0, 0, source)
    sections = {path[:size]: place for size in range(1, len(path))}
    new = {at: place for at in sections if at not in settings.places} | {path: place}
    return settings.replaced(values, {path}, new)


def _put(
    old: Any, keys: Sequence[str], value: Any, path: KeyPath, source: str
) -> tuple[Any, KeyPath]:
    """A copy of `old` with `value` at `keys`, and the path that these are."""
    if not keys:
        return value, path
    key, *rest = keys
    if isinstance(old, list) or (old is None and key.isdecimal()):
        items = old or []
        at = int(key) if re.fullmatch("[0-9]{1,5}", key) else len(items)
        if at >= len(items):
            raise ConfigError(
                f"{source}: {dotted(path)} has no item {key[:40]!r}, only {len(items)}, counted "
                "from 0; set the whole list to make it longer"
            )
        item, full = _put(items[at], rest, value, (*path, at), source)
        return [*items[:at], item, *items[at + 1 :]], full
    if old is not None and not isinstance(old, dict):
        raise ConfigError(
            f"{source}: {dotted(path)} is {given(old)}, not a section; set it as a whole"
        )
    section = old or {}
    item, full = _put(section.get(key), rest, value, (*path, key), source)
    return {**section, key: item}, full


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
