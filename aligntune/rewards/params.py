"""The params of a reward against the signature of its function."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from aligntune.errors import ConfigError, unknown

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a mapping",
    Mapping: "a mapping",
}


class Setting(NamedTuple):
    kind: Any
    """Its type."""
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def settings(function: Callable[..., Any]) -> dict[str, Setting] | None:
    """The settings of a reward function; None where it takes whatever it is given, or does not
    say, as some that are written in C."""
    try:
        rest = list(inspect.signature(function).parameters.values())[1:]
    except ValueError:
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in rest):
        return None
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {p.name: Setting(p.annotation, p.default) for p in rest if p.kind in named}


def check_keys(name: str, known: Mapping[str, Setting] | None, params: Mapping[str, Any]) -> None:
    """Raise ConfigError for a param that reward `name` does not have, or has to be given."""
    if known is None:
        return
    for key in params:
        if not known:
            raise ConfigError(f"reward {name!r} has no params; remove {key!r}")
        if key not in known:
            raise ConfigError(f"reward {name!r}: " + unknown("param", key, known))
    for key, setting in known.items():
        if setting.required and key not in params:
            raise ConfigError(f"reward {name!r} needs `params: {{{key}: ...}}`")


def check_types(name: str, known: Mapping[str, Setting], params: Mapping[str, Any]) -> None:
    """Raise ConfigError for a param whose value is of another type than the function wants."""
    for key, value in params.items():
        kind = known[key].kind
        try:
            TypeAdapter(kind, config=_STRICT).validate_python(value)
        except ValidationError:
            raise ConfigError(
                f"reward {name!r}: param {key!r} is {value!r}, and must be {words(kind)}"
            ) from None


def words(kind: Any) -> str:
    """A type in words: `a list of texts`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (list, Sequence):
        item = words(inner[0]).removeprefix("a ")
        return f"a list of {item}s"
    if origin in _KINDS:
        return _KINDS[origin]
    if inner:
        return " or ".join(words(one) for one in inner if one is not NoneType)
    return _KINDS[kind]
