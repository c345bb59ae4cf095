"""What is wrong with a config, a line each: where, what was given, what is allowed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aligntune.config.foreign import ALGORITHMS
from aligntune.config.naming import KeyPath, dotted, given, short
from aligntune.config.nearest import similar
from aligntune.config.rules import Problem
from aligntune.config.schema import Schema, allowed_at, choices_of, in_words, known_name
from aligntune.errors import ConfigError

MAX_SHOWN = 20


class Place(NamedTuple):
    """Where a setting was made."""

    source: int
    """Index of the file; overrides count on from there."""
    line: int
    column: int
    label: str
    """`file:line:column`, or `--set key=value`."""
    reference: str | None = None
    """What is written there, where the value comes from the environment and may be a secret."""
    empty: bool = False
    """Nothing is written there, which YAML reads as null."""


def explain(
    error: ValidationError, values: Mapping[str, Any], places: Mapping[KeyPath, Place]
) -> ConfigError:
    """Everything that is wrong with single settings."""
    found: dict[KeyPath, ErrorDetails] = {}
    for details in error.errors(include_url=False):
        found.setdefault(_path(details, values), details)
    # An error of a whole value only repeats those inside it: the branches of a union, a list
    # that is too short without its faulty items.
    inner = {path[:size] for path in found for size in range(len(path))}
    empty = dict(empty_sections(values, places))
    paths = _in_order((*(path for path in found if path not in inner), *empty), places)
    # Words take a search through all keys, so only what is shown is put into words.
    shown = [
        Problem(path, empty.get(path) or _what(path, found[path], places))
        for path in paths[:MAX_SHOWN]
    ]
    return _listed(shown, places, len(paths))


def empty_sections(values: Mapping[str, Any], places: Mapping[KeyPath, Place]) -> Iterator[Problem]:
    """Sections that null turns off and whose keys are missing, maybe as they are commented out."""
    for path in [path for path, place in places.items() if place.empty]:
        options = allowed_at(path)
        section = next((option for option in options if "properties" in option), None)
        off = any(option.get("type") == "null" for option in options)
        if section and off and reduce(getitem, path, values) is None:  # type: ignore[arg-type]
            on = "give its settings" if section.get("required") else "write {} for its defaults"
            yield Problem(path, f"there is nothing in it; {on}, or null for none")


def together(problems: Sequence[Problem], places: Mapping[KeyPath, Place]) -> ConfigError:
    """All of `problems`, which are about settings that `places` has or that have their default."""
    messages: dict[KeyPath, list[str]] = {}
    for path, message in problems:
        messages.setdefault(path, []).append(message)
    ordered = [Problem(at, text) for at in _in_order(messages, places) for text in messages[at]]
    return _listed(ordered[:MAX_SHOWN], places, len(ordered))


def _listed(
    problems: Iterable[Problem], places: Mapping[KeyPath, Place], total: int
) -> ConfigError:
    """One line per problem, `place: key.path: what; what to do`."""
    lines = []
    for path, message in problems:
        label = place_of(path, places).label
        lines.append(f"{label}: {dotted(path)}: {message}" if path else f"{label}: {message}")
    if more := total - len(lines):
        lines.append(f"... and {more} more")
    return ConfigError("\n".join(lines))


def _in_order(paths: Iterable[KeyPath], places: Mapping[KeyPath, Place]) -> list[KeyPath]:
    """`paths` as they come in the files."""
    return sorted(paths, key=lambda path: place_of(path, places)[:3])


def place_of(path: KeyPath, places: Mapping[KeyPath, Place]) -> Place:
    """Where `path` was set, or else the nearest section around it."""
    while path not in places:
        path = path[:-1]
    return places[path]


def _path(details: ErrorDetails, values: Any) -> KeyPath:
    """The part of pydantic's location that exists in the config: it also names union branches."""
    path: list[str | int] = []
    for step in details["loc"]:
        if isinstance(values, dict):
            inside = step in values
        else:
            inside = isinstance(values, list) and isinstance(step, int) and step < len(values)
        if inside:
            values = values[step]
            path.append(step)
    if details["type"] == "missing":
        path.append(details["loc"][-1])
    return tuple(path)


def _what(path: KeyPath, details: ErrorDetails, places: Mapping[KeyPath, Place]) -> str:
    if details["type"] == "extra_forbidden":
        return f"unknown key; {known_name(path)}"
    allowed = allowed_at(path)
    if details["type"] == "missing":
        return f"required, and not given; must be {in_words(allowed)}"
    value = details["input"]
    if path in places and (reference := places[path].reference):
        quotes = _quotes(path, value, allowed, places)
        return f"got what {short(reference)} stands for; must be {in_words(allowed)}{quotes}"
    return f"got {given(value)}; must be {in_words(allowed)}{_hint(path, value, allowed, places)}"


def _hint(
    path: KeyPath, value: Any, allowed: Sequence[Schema], places: Mapping[KeyPath, Place]
) -> str:
    if value is None:
        required = any(path[-1] in option.get("required", ()) for option in allowed_at(path[:-1]))
        return "" if required else "; without the line it has its default"
    if isinstance(value, str):
        if path == ("algo",) and (instead := ALGORITHMS.get(value.lower().replace("-", "_"))):
            return f"; {instead}"
        known = [name for name in choices_of(allowed) if isinstance(name, str)]
        close = similar(value, known)
        return f"; did you mean {close!r}?" if close else ""
    return _quotes(path, value, allowed, places)


def _quotes(
    path: KeyPath, value: Any, allowed: Sequence[Schema], places: Mapping[KeyPath, Place]
) -> str:
    text = any(option.get("type") == "string" and not choices_of([option]) for option in allowed)
    if not text or not isinstance(value, int | float):
        return ""
    setting, _, written = place_of(path, places).label.removeprefix("--set ").partition("=")
    # Of a shell's words the quotes around the value alone do not arrive here.
    return (
        f"; write --set '{setting}=\"{written}\"'"
        if setting == dotted(path)
        else "; put it in quotes"
    )
