"""One common slip in YAML, read as it was meant: the keys of a list item in the dash's own column.

    datasets:
     - name: a
     max_samples: 1000

This is no YAML, so there is nothing else that it could mean. The tokens show where it happens: in
a text that YAML allows, no key ever stands directly in a block list.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import yaml

from aligntune.config.naming import short
from aligntune.config.reader import LOADER, MAX_ITEMS

_MAX_TOKENS = 4 * MAX_ITEMS  # two keys and two values make four events and no more than these
_NO_VALUE = (yaml.ValueToken, yaml.AnchorToken, yaml.TagToken)


@dataclass(frozen=True)
class Repair:
    """A line that was not read as it stands."""

    source: str
    line: int
    """From 1."""
    how: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.how}"


@dataclass(frozen=True)
class Repaired:
    text: str
    added: Mapping[int, int]
    """Line, from 1 -> columns by which `text` indents it further."""
    repairs: tuple[Repair, ...]


@dataclass
class _Stray:
    """A key in the column of its list's dashes. Lines count from 0."""

    key: str
    line: int
    item: int
    """The line of the dash."""
    column: int
    shift: int
    end: int = 0
    """The first line after its value."""


@dataclass
class _List:
    """An open block list."""

    column: int
    in_section: bool
    """It is the value of a key, not an item of another list or the whole document."""
    item: tuple[int, int] | None = None
    """Line and column of the current item's first key; None where it is no `- key: value`."""
    stray: _Stray | None = None
    """The key that is being read."""


@dataclass
class _Scan:
    """What is open at a token: block and flow collections, only block lists with a record."""

    open: list[_List | None] = field(default_factory=list)
    found: list[_Stray] = field(default_factory=list)
    valued: bool = True
    """The token before ended a value, so that no key is left without one."""

    def leave(self, line: int) -> None:
        """The value of the list's stray key, if one is being read, ends before `line`."""
        here = self.open[-1] if self.open else None
        if here and here.stray:
            here.stray.end = line
            # A key without a value may own what follows, or not: that is not for us to say.
            if self.valued:
                self.found.append(here.stray)
            here.stray = None

    def close(self, line: int) -> None:
        self.leave(line)
        if self.open:
            self.open.pop()


def repaired(text: str, source: str) -> Repaired:
    """`text` with every such key moved below its item's first key, and what follows it along."""
    strays = _strays(_tokens(text + "\n"))  # so that the last value, too, ends before some line
    lines = text.splitlines(keepends=True)
    added: dict[int, int] = {}
    for stray in strays:
        for number in _owned(stray, lines):
            added[number + 1] = added.get(number + 1, 0) + stray.shift
    fixed = "".join(" " * added.get(number, 0) + line for number, line in enumerate(lines, start=1))
    return Repaired(fixed, added, tuple(_told(stray, source) for stray in strays))


def _told(stray: _Stray, source: str) -> Repair:
    return Repair(
        source,
        stray.line + 1,
        f"{short(stray.key)} was read as part of the list item in line {stray.item + 1} "
        "(it stands in the dash's own column)",
    )


def _tokens(text: str) -> list[Any]:
    """The tokens up to the first that is none; the parser will say what is wrong there."""
    found: list[Any] = []
    with suppress(yaml.YAMLError, ValueError, OverflowError):
        for token in islice(yaml.scan(text, Loader=LOADER), _MAX_TOKENS):
            found.append(token)
    return found


def _strays(tokens: Sequence[Any]) -> list[_Stray]:
    """The keys to move, in the order of the file."""
    scan = _Scan()
    for index, token in enumerate(tokens):
        line, column = token.start_mark.line, token.start_mark.column
        here = scan.open[-1] if scan.open else None
        match token:
            case yaml.BlockSequenceStartToken():
                in_section = here.stray is not None if here else bool(scan.open)
                scan.open.append(_List(column, in_section))
            case (
                yaml.BlockMappingStartToken()
                | yaml.FlowMappingStartToken()
                | yaml.FlowSequenceStartToken()
            ):
                scan.open.append(None)
            case yaml.BlockEndToken() | yaml.FlowMappingEndToken() | yaml.FlowSequenceEndToken():
                scan.close(line)
            case yaml.BlockEntryToken() if here:
                scan.leave(line)
                here.item = _first_key(tokens, index)
            case yaml.KeyToken() if here:
                scan.leave(line)
                here.stray = _stray(here, tokens, index) if scan.valued else None
        if not isinstance(token, yaml.BlockEndToken):
            scan.valued = not isinstance(token, _NO_VALUE)
    end = tokens[-1].end_mark.line + 1 if tokens else 0
    while scan.open:
        scan.close(end)
    return sorted(scan.found, key=lambda stray: stray.line)


def _first_key(tokens: Sequence[Any], entry: int) -> tuple[int, int] | None:
    """Where the key of `- key: value` stands, or None if the item is something else."""
    kinds = [type(token) for token in tokens[entry + 1 : entry + 4]]
    if kinds != [yaml.BlockMappingStartToken, yaml.KeyToken, yaml.ScalarToken]:
        return None
    mark, key = tokens[entry + 1].start_mark, tokens[entry + 3].start_mark
    if (key.index, mark.line) != (mark.index, tokens[entry].start_mark.line):
        return None
    return mark.line, mark.column


def _stray(here: _List, tokens: Sequence[Any], index: int) -> _Stray | None:
    key, mark = tokens[index + 1 : index + 2], tokens[index].start_mark
    if not here.in_section or here.item is None or mark.column != here.column:
        return None
    if not (key and isinstance(key[0], yaml.ScalarToken) and key[0].start_mark.index == mark.index):
        return None
    line, column = here.item
    return _Stray(key[0].value, mark.line, line, here.column, column - here.column)


def _owned(stray: _Stray, lines: Sequence[str]) -> Iterator[int]:
    """The lines to move with a key: its comments, itself, and all of its value."""
    first, end = stray.line, min(stray.end, len(lines))
    while _is_above(lines[first - 1], stray.column):
        first -= 1
    while _is_above(lines[end - 1], stray.column):
        end -= 1
    for number in range(first, end):
        # Less indented are comments, and later lines of a quoted value, where it does not matter.
        if _indent(lines[number]) >= stray.column:
            yield number


def _is_above(line: str, column: int) -> bool:
    """Whether the line speaks of what comes below it: blank, or a comment in the dash's column.

    Nothing that is indented so little can belong to a text block.
    """
    indent, rest = _indent(line), line.strip()
    return indent == column and rest.startswith("#") if rest else indent <= column


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
