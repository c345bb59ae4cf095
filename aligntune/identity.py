"""What a stage's result depends on, as dotted names, and how two of them differ."""

from collections.abc import Mapping
from typing import Any


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted names of the fields that differ, without the parts' own prefix."""
    before, after = flat(old), flat(new)
    changed = [
        name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)
    ]
    return [name.removeprefix("config.").removeprefix("inputs.") for name in changed]


def distance(old: Any, new: Any) -> int:
    """How many fields differ: as many as `differences` names, without the work of naming them."""
    if old == new:
        return 0
    before, after = _parts(old), _parts(new)
    if before is None and after is None:
        return 1
    # What is not there is as null, and a leaf in the place of a section is a field beside it.
    leaf = (before is None and old is not None) or (after is None and new is not None)
    before, after = before or {}, after or {}
    names = before.keys() | after.keys()
    return leaf + sum(distance(before.get(name), after.get(name)) for name in names)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested JSON value as {dotted path: leaf}."""
    parts = _parts(value)
    if parts is None:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, item in parts.items():
        leaves |= flat(item, f"{prefix}.{key}" if prefix else key)
    return leaves


def _parts(value: Any) -> dict[str, Any] | None:
    """By name or number; None of a leaf."""
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, list | tuple):
        return {str(index): item for index, item in enumerate(value)}
    return None
