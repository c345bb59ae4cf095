"""Settings from a config's `set` as overrides: what a command line and a flow's parameters take."""

from collections.abc import Mapping
from typing import Any

from aligntune.config.environment import escaped
from aligntune.config.naming import KeyPath

TEMPLATE = "{{"
"""What a value has that Prefect fills in from an event."""
QUOTED = "{{% filter tojson %}}{}{{% endfilter %}}"
"""A template whose text is quoted."""


def path_of(key: str) -> KeyPath:
    """The steps of a dotted key."""
    return tuple(int(step) if step.isdecimal() else step for step in key.split("."))


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
    """`key=value` that reads as this value; a template is left for Prefect to fill in, and what is
    filled in is text where the setting is: `20261126` is no number there."""
    if isinstance(value, str) and TEMPLATE in value:
        from aligntune.config.schema import is_text

        return f"{key}={QUOTED.format(value) if is_text(path_of(key)) else value}"
    import json

    text = json.dumps(value, ensure_ascii=False)
    return f"{key}={escaped(text)}"
