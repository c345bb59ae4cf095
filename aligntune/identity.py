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


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested JSON value as {dotted path: leaf}."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, item in items:
        leaves |= flat(item, f"{prefix}.{key}" if prefix else key)
    return leaves
