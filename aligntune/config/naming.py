"""How messages name a key or a value: short, and safe to show."""

import re
import reprlib
from typing import Any

KeyPath = tuple[str | int, ...]
"""`("datasets", 0, "name")`: keys of sections and indices of list items, from the top."""


def dotted(path: KeyPath) -> str:
    """`datasets.0.name`, as `--set` takes it."""
    return ".".join(
        step if isinstance(step, str) and re.fullmatch(r"[\w-]{1,64}", step) else given(step)
        for step in path
    )


def given(value: Any) -> str:
    """A value as a message names it."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = reprlib.Repr()
    shown.maxstring = 60
    return printable(shown.repr(value))


def short(text: str) -> str:
    """`text` in quotes, its end left out where it is long."""
    return printable(repr(text if len(text) <= 40 else text[:37] + "..."))


def printable(text: str) -> str:
    """`text` with every character that a terminal might obey written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
