"""The text of a config, and how a message points at a part of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aligntune.errors import ConfigError

MAX_BYTES = 1 << 20

_CONTROL = re.compile(
    # All but YAML's printable set, by what it leaves out: that is ten times as quick to compile.
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"
)


class Mark(NamedTuple):
    """Both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Script:
    """Text to parse. Messages show the file that it comes from, not a repaired copy."""

    source: str
    """The file's name, or `--set key=value`."""
    text: str
    original: str | None = None
    """The file's own text, where `text` is a repaired copy of it."""
    added: Mapping[int, int] = field(default_factory=dict)
    """Line, from 1 -> columns by which `text` indents it further than the file does."""
    inline: bool = False
    """The text is one value that has no lines to point at."""

    def mark(self, at: Any) -> Mark:
        """Where one of PyYAML's marks is in the file."""
        line = at.line + 1
        return Mark(line, at.column + 1 - self.added.get(line, 0))

    def error(self, at: Any, message: str) -> ConfigError:
        """`message` with the place of PyYAML's mark `at` (None is the start), and the line."""
        if self.inline:
            return ConfigError(f"{self.source}: {message}")
        line, column = self.mark(at) if at else Mark(1, 1)
        shown = excerpt(self.text if self.original is None else self.original, line, column)
        return ConfigError(f"{self.source}:{line}:{column}: {message}{shown}")


def decoded(data: bytes, source: str) -> str:
    """`data` as text. ConfigError where it is not UTF-8 or holds what YAML does not allow."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{source}:1:1: larger than 1 MiB; give a config, not data")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _end(data[: error.start].decode("utf-8", "replace"))
        raise ConfigError(
            f"{source}:{line}:{column}: byte 0x{data[error.start]:02x} (offset {error.start}) is "
            "not UTF-8; save the file as UTF-8 text"
        ) from None
    if found := _CONTROL.search(text):
        line, column = _end(text[: found.start()])
        shown = excerpt(text, line, column)
        raise ConfigError(f"{source}:{line}:{column}: {forbidden(text)}{shown}")
    return text


def forbidden(text: str) -> str | None:
    """What to say of the first character that YAML does not allow, or None without one."""
    found = _CONTROL.search(text)
    return f"the character U+{ord(found[0]):04X} is not allowed; remove it" if found else None


def excerpt(text: str, line: int, column: int) -> str:
    """The line with a caret below the column, both indented; a long line is cut around it."""
    lines = text.splitlines()
    if line > len(lines):
        return ""
    start = max(0, column - 60)
    shown = "".join(c if c.isprintable() else " " for c in lines[line - 1][start : start + 100])
    return f"\n    {shown.rstrip()}\n    {' ' * (column - 1 - start)}^"


def _end(before: str) -> Mark:
    lines = (before + "x").splitlines()
    return Mark(len(lines), len(lines[-1]))
