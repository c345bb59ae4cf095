"""What is wrong with a config, in words: where, what was given, what is allowed, the nearest name.

What is allowed is read from the JSON schema of `RunConfig`, so a new field explains itself.
"""

import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aligntune.config.document import KeyPath, printable
from aligntune.config.nearest import one_edit_from, similar
from aligntune.config.run import RunConfig
from aligntune.errors import ConfigError

MAX_SHOWN = 20

_PATTERNS = {
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": (
        "at most 64 letters, digits, '.', '_' or '-', the first a letter or digit"
    )
}
_BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
}

Schema = Mapping[str, Any]


class Place(NamedTuple):
    """Where a setting was made. Places sort as they were read."""

    source: int
    """Index of the file; overrides count on from there."""
    line: int
    column: int
    label: str
    """`file:line:column`, or `--set key=value`."""


def explain(
    error: ValidationError, values: Mapping[str, Any], places: Mapping[KeyPath, Place]
) -> ConfigError:
    """One line per problem, `place: key.path: what; what to do`, in the order of the places."""
    found: dict[KeyPath, ErrorDetails] = {}
    for details in error.errors(include_url=False):
        found.setdefault(_path(details, values), details)
    # An error of a whole value only repeats those inside it: the branches of a union, a list
    # that is too short without its faulty items.
    inner = {path[:size] for path in found for size in range(len(path))}
    problems = [
        _anchored(path, details, places) for path, details in found.items() if path not in inner
    ]
    problems.sort(key=lambda problem: problem[0])
    lines = [_line(*problem) for problem in problems[:MAX_SHOWN]]
    if more := len(problems) - len(lines):
        lines.append(f"... and {more} more")
    return ConfigError("\n".join(lines))


def dotted(path: KeyPath) -> str:
    """`datasets.0.name`, as `--set` takes it."""
    return ".".join(
        step if isinstance(step, str) and re.fullmatch(r"[\w-]{1,64}", step) else given(step)
        for step in path
    )


def given(value: Any) -> str:
    """A value as a message names it: short, and safe to show."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    short = reprlib.Repr()
    short.maxstring = 60
    return printable(short.repr(value))


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


def _anchored(
    path: KeyPath, details: ErrorDetails, places: Mapping[KeyPath, Place]
) -> tuple[Place, KeyPath, ErrorDetails]:
    """The problem with its place. A rule over several keys stands at the first that it names."""
    if details["type"] == "value_error":
        for named in re.findall(r"`([\w.]+)", details["msg"]):
            steps = tuple(int(s) if s.isdecimal() else s for s in named.split("."))
            for candidate in ((*path, *steps), steps):
                if candidate in places:
                    return places[candidate], candidate, details
    return place_of(path, places), path, details


def _line(place: Place, path: KeyPath, details: ErrorDetails) -> str:
    where = f"{place.label}: {dotted(path)}: " if path else f"{place.label}: "
    return where + _what(path, details)


def _what(path: KeyPath, details: ErrorDetails) -> str:
    if details["type"] == "value_error":
        return details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        return f"unknown key; {_known_name(path)}"
    allowed = _at(path)
    if details["type"] == "missing":
        return f"required, and not given; must be {_words(allowed)}"
    value = details["input"]
    return f"got {given(value)}; must be {_words(allowed)}{_hint(path, value, allowed)}"


def _hint(path: KeyPath, value: Any, allowed: Sequence[Schema]) -> str:
    if value is None:
        required = any(path[-1] in option.get("required", ()) for option in _at(path[:-1]))
        return "" if required else "; without the line it has its default"
    if isinstance(value, str):
        close = similar(value, [name for name in _choices(allowed) if isinstance(name, str)])
        return f"; did you mean {close!r}?" if close else ""
    if any(option.get("type") == "string" and not _choices([option]) for option in allowed):
        return "; put it in quotes" if isinstance(value, int | float) else ""
    return ""


def _known_name(path: KeyPath) -> str:
    """The right name for an unknown key: a near one here, the same elsewhere, or what there is."""
    section, name = path[:-1], str(path[-1]).replace("-", "_")
    here = [key for option in _at(section) for key in option.get("properties", ())]
    if close := one_edit_from(name, here):
        return f"did you mean {close!r}?"
    close, places = similar(name, here), _elsewhere(section, name)
    if places and not close:
        return f"it belongs at {' or '.join(places)}"
    if not close:
        # One edit from a name of two letters is no evidence.
        long = {str(known[-1]) for known in _all_paths() if len(str(known[-1])) > 3}
        places = _elsewhere(section, one_edit_from(name, long))
    meant = [*([repr(close)] if close else []), *places]
    return f"did you mean {' or '.join(meant)}?" if meant else f"choose from {', '.join(here)}"


def _elsewhere(section: KeyPath, name: str | None) -> list[str]:
    """The paths that end in `name`, as near to `section` and to the top as there are."""
    found = [path for path in _all_paths() if path[-1] == name]
    shared = {path: _shared(path, section) for path in found}
    sizes = {path: sum(isinstance(step, str) for step in path) for path in found}
    found = [path for path in found if shared[path] == max(shared.values())]
    found = [path for path in found if sizes[path] == min(sizes[other] for other in found)]
    return [f"the top level: {name!r}" if len(path) == 1 else repr(dotted(path)) for path in found]


def _shared(path: KeyPath, section: KeyPath) -> int:
    size = 0
    while size < min(len(path), len(section)) and path[size] == section[size]:
        size += 1
    return size


@cache
def _schema() -> Schema:
    return RunConfig.model_json_schema()


@cache
def _all_paths() -> tuple[KeyPath, ...]:
    """Every key of the config; 0 stands for any index."""
    return tuple(_paths_below(_options(_schema()), ()))


def _paths_below(options: Sequence[Schema], path: KeyPath) -> Iterator[KeyPath]:
    for option in options:
        for name, child in option.get("properties", {}).items():
            yield (*path, name)
            yield from _paths_below(_options(child), (*path, name))
        if isinstance(child := option.get("items"), dict):
            yield from _paths_below(_options(child), (*path, 0))


def _options(schema: Schema) -> list[Schema]:
    """The alternatives of a schema, references resolved."""
    if "$ref" in schema:
        return _options(_schema()["$defs"][schema["$ref"].rsplit("/", 1)[-1]])
    if "anyOf" in schema:
        return [option for part in schema["anyOf"] for option in _options(part)]
    return [schema]


def _at(path: KeyPath) -> list[Schema]:
    """What the schema allows at `path`."""
    options = _options(_schema())
    for step in path:
        children = [
            option.get("items")
            if isinstance(step, int)
            else option.get("properties", {}).get(step, option.get("additionalProperties"))
            for option in options
        ]
        options = [
            found for child in children if isinstance(child, dict) for found in _options(child)
        ]
    return options


def _choices(options: Sequence[Schema]) -> list[Any]:
    return [
        choice
        for option in options
        for choice in ([option["const"]] if "const" in option else option.get("enum", ()))
    ]


def _words(options: Sequence[Schema]) -> str:
    """`a whole number >= 1, or null`."""
    choices = _choices(options)
    words = [", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"] if choices[1:] else []
    words = words or [repr(choice) for choice in choices]
    words += [_kind(option) for option in options if not _choices([option])]
    return ", or ".join(dict.fromkeys(words)) or "a value"


def _kind(option: Schema) -> str:
    match option.get("type"):
        case "integer" | "number" as kind:
            bounds = [f"{sign} {option[key]}" for key, sign in _BOUNDS.items() if key in option]
            noun = "a whole number" if kind == "integer" else "a number"
            return " ".join([noun, " and ".join(bounds)]).strip()
        case "string" if "pattern" in option:
            return _PATTERNS.get(option["pattern"], f"text that matches {option['pattern']}")
        case "string":
            return "text that is not empty" if option.get("minLength") else "text"
        case "array":
            size = f" of at least {option['minItems']}" if option.get("minItems") else ""
            return f"a list{size}, each item {_words(_options(option['items']))}"
        case "boolean":
            return "true or false"
        case "object":
            return "a section of `key: value` lines"
        case kind:
            return str(kind or "a value")
