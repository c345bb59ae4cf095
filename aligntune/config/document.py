"""A config file: what it holds, where each key stands, and how its text was understood."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligntune.config.environment import filled, refers
from aligntune.config.naming import KeyPath, printable
from aligntune.config.reader import Reader, StrayKey
from aligntune.config.scalar import plain
from aligntune.config.script import MAX_BYTES, Mark, Script, decoded, forbidden
from aligntune.errors import ConfigError

if TYPE_CHECKING:
    from aligntune.config.repair import Repair


@dataclass(frozen=True)
class Document:
    source: str
    """The file's name as given, with nothing in it that could confuse a terminal."""
    values: dict[str, Any]
    """With variables of the environment filled in."""
    marks: Mapping[KeyPath, Mark]
    """Where each key and each list item starts in the file; `()` is the top."""
    references: Mapping[KeyPath, str]
    """The values that come from the environment, as the file has them."""
    empty: Collection[KeyPath]
    """The keys with nothing behind them."""
    text: str
    """The file's text, repaired."""
    repairs: tuple["Repair", ...]
    """What was repaired in it."""


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


def fixed(path: Path) -> tuple[str, tuple["Repair", ...]]:
    """The file's text as valid YAML, line ends and comments as they were, and what changed.

    Write it with `newline=""`. ConfigError as from `read_document`.
    """
    document = read_document(path)
    return document.text, document.repairs


def parse_document(data: bytes, source: str) -> Document:
    """`data` as `read_document` would read it from a file named `source`."""
    text = decoded(data, source)
    repairs: tuple[Repair, ...] = ()
    reader = Reader(Script(source, text))
    try:
        values = reader.read()
    except StrayKey:
        from aligntune.config.repair import repaired

        fix = repaired(text, source)
        if not fix.repairs:
            raise
        reader = Reader(Script(source, fix.text, original=text, added=fix.added))
        text, repairs = fix.text, fix.repairs
        values = reader.read()
    if not isinstance(values, dict):
        line, column = reader.marks[()]
        raise ConfigError(
            f"{source}:{line}:{column}: the top level is not a mapping; write `key: value` lines"
        )
    marks, references = reader.marks, reader.references
    return Document(source, values, marks, references, reader.empty, text, repairs)


def parse_value(text: str, source: str) -> tuple[Any, Mapping[KeyPath, str]]:
    """One value as in a file: quoted, a flow list or mapping, or else one plain scalar.

    Plain text is taken as it stands, so that `arithmetic:` or `@x` need no quotes. With the value
    come the references in it, by their paths below it. `source` goes in front of a ConfigError.
    """
    text = text.strip()
    if problem := forbidden(text):
        raise ConfigError(f"{source}: {problem}")
    if text.startswith(("[", "{", '"', "'")):
        reader = Reader(Script(source, text, inline=True))
        return reader.read(), reader.references
    try:
        if "${" not in text:
            return plain(text), {}
        value = filled(text, quoted=False, room=MAX_BYTES)
        return value, {(): text} if refers(text) else {}
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None
