"""Settings from a config's `set` as overrides: what a command line and a flow's parameters take."""

from collections.abc import Mapping
from typing import Any

from aligntune.config.environment import escaped

TEMPLATE = "{{"
"""What a value has that Prefect fills in from an event."""


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """`{"train": {"beta": 1}, "seed": 2}` as `{"train.beta": 1, "seed": 2}`."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def override(key: str, value: object) -> str:
    """`key=value` that reads as this value; a template stays as it is, for Prefect."""
    if isinstance(value, str) and TEMPLATE in value:
        return f"{key}={value}"
    import json

    text = json.dumps(value, ensure_ascii=False)
    return f"{key}={escaped(text)}"
