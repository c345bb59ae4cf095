"""YAML 1.2, bounded and with positions: what a config file holds and where each key stands.

PyYAML reads YAML 1.1 (`5e-5` is text, `no` is false), drops duplicate keys, and expands merge keys
without limit. So only its event parser is used here, and values are made of the events.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from aligntune.config.scalar import Scalar, plain
from aligntune.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_ITEMS = 50_000

KeyPath = tuple[str | int, ...]
"""`("datasets", 0, "name")`: keys of sections and indices of list items, from the top."""
_CONTROL = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # YAML's printable set
)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SYNTAX = {
    "mapping values are not allowed": (
        "a ': ' where no key can stand; "
        "put the value in quotes, or line the key up with its section"
    ),
    "expected '-' indicator": (
        "this does not belong to the list item above; "
        "start an item's other keys below its first key, two columns after the dash"
    ),
    "did not find expected key": (
        "this does not line up with the keys above it; "
        "start all keys of a section in one column, and quote a value that holds quotes"
    ),
    "could not find expected ':'": "there is no ': ' after this; write `key: value`",
    "cannot start any token": (
        "no value can start with this character; put the value in quotes, "
        "and indent with spaces, not tabs"
    ),
    "unexpected end of stream": "this quote is never closed; close it",
    "expected ',' or ']'": "this list is not closed or lacks a comma; write `[a, b]`",
    "expected ',' or '}'": "this mapping is not closed or lacks a comma; write `{a: 1, b: 2}`",
    "expected node content": "a value is missing before this; give one",
    "escape c": "this backslash escape does not exist; use single quotes, or double the backslash",
    "expected <document start>": "text after the end of the document; put it under a key",
    "sequence entries are not allowed": "a list item where no list can stand; start a new line",
    "incompatible YAML document": "this is not YAML 1.2; remove the line that starts with %",
}
"""The parser's complaint -> the same for people: what it is; what to do."""


class Mark(NamedTuple):
    """Both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    source: str
    """The file's name as given, with nothing in it that could confuse a terminal."""
    values: dict[str, Any]
    marks: Mapping[KeyPath, Mark]
    """Where each key and each list item starts; `()` is the top."""


def read_document(path: Path) -> Document:
    """The file's content, or one ConfigError `file:line:column: what; what to do`."""
    source = printable(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "it cannot be opened").lower()
        raise ConfigError(f"{source}: cannot read the config: {reason}; check the path") from None
    except ValueError:
        raise ConfigError(f"{source}: no file can have this name; check the path") from None
    return parse_document(data, source)


def parse_document(data: bytes, source: str) -> Document:
    """`data` as `read_document` would read it from a file named `source`."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{source}:1:1: larger than 1 MiB; give a config, not data")
    reader = _Reader(_text(data, source), source)
    values = reader.read()
    if not isinstance(values, dict):
        line, column = reader.marks[()]
        raise ConfigError(
            f"{source}:{line}:{column}: the top level is not a mapping; write `key: value` lines"
        )
    return Document(source, values, reader.marks)


def parse_value(text: str, source: str) -> Any:
    """One value as in a file: quoted, a flow list or mapping, or else one plain scalar.

    Plain text is taken as it stands, so that `arithmetic:` or `@x` need no quotes. `source` goes
    in front of a ConfigError.
    """
    text = text.strip()
    if found := _CONTROL.search(text):
        raise ConfigError(f"{source}: {_control(found[0])}")
    if text.startswith(("[", "{", '"', "'")):
        return _Reader(text, source, inline=True).read()
    try:
        return plain(text)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None


def printable(text: str) -> str:
    """`text` with every character that a terminal might obey written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _text(data: bytes, source: str) -> str:
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
        raise ConfigError(
            f"{source}:{line}:{column}: {_control(found[0])}{_excerpt(text, line, column)}"
        )
    return text


def _control(character: str) -> str:
    return f"the character U+{ord(character):04X} is not allowed; remove it"


def _end(before: str) -> Mark:
    lines = (before + "x").splitlines()
    return Mark(len(lines), len(lines[-1]))


def _excerpt(text: str, line: int, column: int) -> str:
    """The line with a caret below the column, both indented; a long line is cut around it."""
    lines = text.splitlines()
    if line > len(lines):
        return ""
    start = max(0, column - 60)
    shown = "".join(c if c.isprintable() else " " for c in lines[line - 1][start : start + 100])
    return f"\n    {shown.rstrip()}\n    {' ' * (column - 1 - start)}^"


class _Reader:
    """The values of one document, and where they stand. `inline` text has no lines to point at."""

    def __init__(self, text: str, source: str, *, inline: bool = False) -> None:
        self.marks: dict[KeyPath, Mark] = {}
        self._text = text
        self._source = source
        self._inline = inline
        self._events = self._checked()

    def read(self) -> Any:
        next(self._events)
        start = next(self._events)
        if isinstance(start, yaml.StreamEndEvent):
            self._fail(start.start_mark, "the file is empty; write `key: value` lines")
        top = next(self._events)
        self.marks[()] = _mark(top.start_mark)
        value = self._value(top, ())
        next(self._events)
        rest = next(self._events)
        if not isinstance(rest, yaml.StreamEndEvent):
            self._fail(rest.start_mark, "a second document starts here; keep one per file")
        return value

    def _value(self, event: yaml.Event, path: KeyPath) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if len(path) >= MAX_DEPTH:
            self._fail(event.start_mark, f"nested deeper than {MAX_DEPTH} levels; flatten it")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path)
        return self._mapping(path)

    def _list(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            here = (*path, len(items))
            self.marks[here] = _mark(event.start_mark)
            items.append(self._value(event, here))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event)
            if key in values:
                first = self.marks[(*path, key)].line
                self._fail(
                    event.start_mark,
                    f"the key {_short(key)} is already on line {first}; keep one of the two",
                )
            self.marks[(*path, key)] = _mark(event.start_mark)
            values[key] = self._value(next(self._events), (*path, key))
        return values

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._fail(event.start_mark, "a list or mapping cannot be a key; write a word")
        if event.implicit[0] and event.value == "<<":
            self._fail(event.start_mark, "merge keys are not supported; write the keys out")
        key = self._scalar(event)
        if not isinstance(key, str):
            self._fail(
                event.start_mark,
                f"the key {_short(event.value)} is not read as text; put it in quotes",
            )
        return key

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        if event.implicit[0]:
            try:
                return plain(event.value)
            except ValueError as error:
                self._fail(event.start_mark, str(error))
        if found := _CONTROL.search(event.value):
            self._fail(event.start_mark, _control(found[0]))
        return event.value

    def _checked(self) -> Iterator[yaml.Event]:
        """The parser's events, up to the first thing that a config must not contain."""
        for count, event in enumerate(self._parsed()):
            if count > MAX_ITEMS:
                self._fail(event.start_mark, f"more than {MAX_ITEMS:,} items; shorten the file")
            if isinstance(event, yaml.AliasEvent):
                self._fail(event.start_mark, "aliases (*name) are not supported; repeat the value")
            if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
                self._fail(event.start_mark, "anchors (&name) are not supported; remove it")
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
                self._fail(event.start_mark, "tags (!name) are not supported; remove it")
            yield event

    def _parsed(self) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(self._text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            self._fail_syntax(error)
        except (yaml.YAMLError, ValueError, OverflowError):
            # The parser in pure Python lets escapes such as "\UFFFFFFFF" out as OverflowError.
            self._fail(None, "this is not YAML; check the file")

    def _fail_syntax(self, error: yaml.MarkedYAMLError) -> NoReturn:
        problem = str(error.problem)
        mark = error.problem_mark
        at_end = mark is None or mark.index >= len(self._text.rstrip())
        if error.context_mark and (at_end or "expected ':'" in problem):
            mark = error.context_mark
        known = (words for fragment, words in _SYNTAX.items() if fragment in problem)
        self._fail(mark, next(known, f"not YAML: {problem}; rewrite this part"))

    def _fail(self, mark: Any, message: str) -> NoReturn:
        if self._inline:
            raise ConfigError(f"{self._source}: {message}")
        line, column = _mark(mark) if mark else Mark(1, 1)
        excerpt = _excerpt(self._text, line, column)
        raise ConfigError(f"{self._source}:{line}:{column}: {message}{excerpt}")


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
