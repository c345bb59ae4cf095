"""Several files and overrides made into one tree of settings, each with its place."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aligntune.config.document import Document, parse_value
from aligntune.config.naming import KeyPath, dotted, printable
from aligntune.config.problems import Place
from aligntune.config.reader import MAX_DEPTH
from aligntune.errors import ConfigError

TEXTS = ("model.name_or_path", "logging.output_dir", "logging.run_name")
"""What flags set that is text, even where it looks like a number: a shell takes the quotes away."""
QUOTES = ("", '"', "'")


@dataclass(frozen=True)
class Settings:
    values: dict[str, Any]
    places: Mapping[KeyPath, Place]
    """Where each key was set last."""

    def merged(self, document: Document, index: int) -> "Settings":
        """With what `document` sets: sections key by key, lists and plain values as a whole."""
        new = {
            path: Place(
                index, *mark, f"{document.source}:{mark.line}:{mark.column}",
                document.references.get(path), path in document.empty,
            )
            for path, mark in document.marks.items()
        }  # fmt: skip
        gone = set(_collisions(self.values, document.values, ()))
        return self._replaced(_over(self.values, document.values), gone, new)

    def overridden(self, override: str, index: int) -> "Settings":
        """With one `section.key=value`; `*` in the place of an index is every item of the list.

        `--flag section.key=value` is the same with another name in messages. ConfigError where
        there is no such place.
        """
        source, setting = _named(override)
        name, equals, text = setting.partition("=")
        keys = name.strip().split(".")
        if not equals:
            raise ConfigError(f"{source}: there is no '='; write section.key=value")
        if not all(keys) or len(keys) > MAX_DEPTH:
            raise ConfigError(f"{source}: {name[:80]!r} is no key; write section.key=value")
        changed = self
        for each in _spread(keys, self.values):
            changed = changed._set(each, text, source, index)
        return changed

    def _set(self, keys: Sequence[str], text: str, source: str, index: int) -> "Settings":
        if ".".join(keys) in TEXTS and not source.startswith("--set") and text[:1] not in QUOTES:
            text = json.dumps(text, ensure_ascii=False)
        value, references = parse_value(text, source)
        values, path = _put(self.values, keys, value, (), source)
        place = Place(index, 0, 0, source)
        sections = {path[:size]: place for size in range(1, len(path))}
        new = {at: place for at in sections if at not in self.places} | {path: place}
        for inner, reference in references.items():
            new[path + inner] = place._replace(reference=reference)
        return self._replaced(values, {path}, new)

    def _replaced(
        self, values: dict[str, Any], gone: set[KeyPath], new: Mapping[KeyPath, Place]
    ) -> "Settings":
        """With `values`, and without the places of what stood at or below the `gone` paths."""
        kept = {
            path: place
            for path, place in self.places.items()
            if not any(path[:size] in gone for size in range(1, len(path) + 1))
        }
        return Settings(values, kept | dict(new))


def _named(override: str) -> tuple[str, str]:
    """(what the user typed, `section.key=value`)."""
    if not override.startswith("--"):
        return f"--set {printable(override[:80])}", override
    flag, _, setting = override.partition(" ")
    return f"{flag} {printable(setting.partition('=')[2][:80])}", setting


def _spread(keys: Sequence[str], values: Any) -> Iterator[list[str]]:
    """`keys` for every item of the list that stands where they say `*`."""
    if "*" not in keys:
        yield list(keys)
        return
    at = keys.index("*")
    for key in keys[:at]:
        values = values.get(key) if isinstance(values, dict) else None
    for number in range(len(values) if isinstance(values, list) else 0):
        yield [*keys[:at], str(number), *keys[at + 1 :]]


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
        # What it is may come from the environment, so it is not shown.
        raise ConfigError(
            f"{source}: {dotted(path)} is one value, not a section; set it as a whole"
        )
    section = old or {}
    item, full = _put(section.get(key), rest, value, (*path, key), source)
    return {**section, key: item}, full
