"""What the config's JSON schema allows, in words, so that a new field explains itself."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from aligntune.config.foreign import foreign
from aligntune.config.naming import KeyPath, dotted
from aligntune.config.nearest import one_edit_from, similar
from aligntune.config.run import RunConfig

_PATTERNS = {
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": (
        "at most 64 letters, digits, '.', '_' or '-', the first a letter or digit"
    ),
    "^(auto|cpu|mps|cuda(:[0-9]+)?)$": "'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'",
}
_BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
}

Schema = Mapping[str, Any]


def known_name(path: KeyPath) -> str:
    """The right name for an unknown key: what another library's is here, a near one here, the same
    elsewhere, or what there is."""
    section, name = path[:-1], str(path[-1]).replace("-", "_")
    ours, how = foreign(section, name.lower())
    if ours:
        (place,) = _nearest(section, ours)
        return f"here it is {dotted(place)!r}" + (f": {how}" if how else "")
    if how:
        return f"there is no such setting: {how}"
    here = [key for option in allowed_at(section) for key in option.get("properties", ())]
    if close := one_edit_from(name, here):
        return f"did you mean {close!r}?"
    close, places = similar(name, here), _elsewhere(section, name)
    if places and not (close and section):
        # At the top are sections: one that looks a little like a setting was not meant.
        return f"it belongs at {' or '.join(places)}"
    if not close or not section:
        # One edit from a name of two letters is no evidence.
        long = {str(known[-1]) for known in _all_paths() if len(str(known[-1])) > 3}
        places = _elsewhere(section, one_edit_from(name, long))
        close = None if places else close
    meant = [*([repr(close)] if close else []), *places]
    return f"did you mean {' or '.join(meant)}?" if meant else f"choose from {', '.join(here)}"


def _elsewhere(section: KeyPath, name: str | None) -> list[str]:
    return [
        f"the top level: {name!r}" if len(path) == 1 else repr(dotted(path))
        for path in _nearest(section, name)
    ]


def _nearest(section: KeyPath, name: str | None) -> list[KeyPath]:
    """The paths that end in `name`, as near to `section` and to the top as there are."""
    found = [path for path, known in _all_paths().items() if f".{known}".endswith(f".{name}")]
    shared = {path: _shared(path, section) for path in found}
    sizes = {path: sum(isinstance(step, str) for step in path) for path in found}
    found = [path for path in found if shared[path] == max(shared.values())]
    found = [path for path in found if sizes[path] == min(sizes[other] for other in found)]
    return [section[: shared[path]] + path[shared[path] :] for path in found]


def _shared(path: KeyPath, section: KeyPath) -> int:
    """How many steps of `path` lead to `section`, too, whatever the indices."""
    size = 0
    while size < min(len(path), len(section)) and (
        path[size] == section[size] or isinstance(path[size], int)
    ):
        size += 1
    return size


@cache
def _schema() -> Schema:
    return RunConfig.model_json_schema()


@cache
def _all_paths() -> Mapping[KeyPath, str]:
    """Every key of the config and how it is written; 0 stands for any index."""
    return {path: dotted(path) for path in _paths_below(_options(_schema()), ())}


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


def allowed_at(path: KeyPath) -> list[Schema]:
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


def is_text(path: KeyPath) -> bool:
    """Whether a setting is text of any kind, or null."""
    kinds = {option.get("type", "any") for option in allowed_at(path)} - {"null"}
    return kinds == {"string"}


def choices_of(options: Sequence[Schema]) -> list[Any]:
    return [
        choice
        for option in options
        for choice in ([option["const"]] if "const" in option else option.get("enum", ()))
    ]


def in_words(options: Sequence[Schema]) -> str:
    """`a whole number >= 1, or null`."""
    choices = choices_of(options)
    words = [", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"] if choices[1:] else []
    words = words or [repr(choice) for choice in choices]
    words += [_kind(option) for option in options if not choices_of([option])]
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
            return f"a list{size}, each item {in_words(_options(option['items']))}"
        case "boolean":
            return "true or false"
        case "object":
            return "a section of `key: value` lines"
        case kind:
            return str(kind or "a value")
