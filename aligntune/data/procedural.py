"""What generators share: checked params, and a train and a test split that never meet."""

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from aligntune.config.base import Strict
from aligntune.errors import ConfigError, unknown

P = TypeVar("P", bound=Strict)

SPLITS = ("train", "test")
TEST_SHARE = 0.2
"""Of all questions that can be asked, whatever the params."""


def checked(model: type[P], params: Mapping[str, Any]) -> P:
    """The params as their model, or a ConfigError with a line per key that is wrong."""
    try:
        return model.model_validate(dict(params))
    except ValidationError as error:
        problems = error.errors(include_url=False)
    # A list with a wrong item is also reported as one that is too short.
    inner = {found["loc"][:size] for found in problems for size in range(len(found["loc"]))}
    lines = [_line(model, found) for found in problems if found["loc"] not in inner]
    raise ConfigError("\n  ".join(lines))


def _line(model: type[P], found: Any) -> str:
    key = ".".join(map(str, ("params", *found["loc"])))
    return f"{key}: {_what(model, found)}"


def _what(model: type[P], found: Any) -> str:
    if found["type"] == "extra_forbidden":
        return unknown("setting", str(found["loc"][-1]), model.model_fields)
    message = found["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]} (got {found['input']!r})"


def belongs(question: str, split: str) -> bool:
    """Whether the question may be asked in that split; each may be in exactly one.

    Depends on the question alone, so also the train split of one config and the test split of
    another have none in common.
    """
    if split not in SPLITS:
        raise ConfigError(unknown("split", split, SPLITS))
    number = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big")
    return (number < TEST_SHARE * 2**64) == (split == "test")
