"""The values of one YAML 1.2 document, bounded and with their places.

PyYAML reads YAML 1.1 (`5e-5` is text, `no` is false), drops duplicate keys, and expands merge keys
without limit. So only its event parser is used here, and values are made of the events.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from aligntune.config.environment import filled, refers
from aligntune.config.naming import KeyPath, dotted, short
from aligntune.config.scalar import Scalar, plain
from aligntune.config.script import MAX_BYTES, Mark, Script, forbidden
from aligntune.errors import ConfigError

MAX_DEPTH = 32
MAX_ITEMS = 50_000
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

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


class StrayKey(ConfigError):
    """A list goes on with something that is no item."""


@dataclass
class _Anchored:
    """What an anchor names: its events, aliases in it already replaced."""

    name: str
    events: list[yaml.Event] = field(default_factory=list)
    depth: int = 0


class Reader:
    """Reads one script, once."""

    def __init__(self, script: Script) -> None:
        self.marks: dict[KeyPath, Mark] = {}
        """Where each key and each list item starts; `()` is the top."""
        self.references: dict[KeyPath, str] = {}
        """The values that hold references to the environment, as they are written."""
        self.empty: set[KeyPath] = set()
        """The keys with nothing behind them, which is null."""
        self._script = script
        self._room = MAX_BYTES
        self._events = self._unaliased()

    def read(self) -> Any:
        """The document's value. ConfigError for whatever else the script is."""
        next(self._events)
        start = next(self._events)
        if isinstance(start, yaml.StreamEndEvent):
            self._fail(start.start_mark, "the file is empty; write `key: value` lines")
        top = next(self._events)
        self.marks[()] = self._script.mark(top.start_mark)
        value = self._value(top, ())
        next(self._events)
        rest = next(self._events)
        if not isinstance(rest, yaml.StreamEndEvent):
            self._fail(rest.start_mark, "a second document starts here; keep one per file")
        return value

    def _value(self, event: yaml.Event, path: KeyPath) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            if not event.value and event.implicit[0]:
                self.empty.add(path)
            return self._filled(event, path) if "${" in event.value else self._scalar(event)
        if len(path) >= MAX_DEPTH:
            self._fail(event.start_mark, f"nested deeper than {MAX_DEPTH} levels; flatten it")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path)
        return self._mapping(path)

    def _list(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            here = (*path, len(items))
            self.marks[here] = self._script.mark(event.start_mark)
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
                    f"the key {short(key)} is already on line {first}; keep one of the two",
                )
            self.marks[(*path, key)] = self._script.mark(event.start_mark)
            values[key] = self._value(next(self._events), (*path, key))
        return values

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._fail(event.start_mark, "a list or mapping cannot be a key; write a word")
        if event.implicit[0] and event.value == "<<":
            self._fail(
                event.start_mark,
                "merge keys are not supported; write the keys out, or merge with a second --config",
            )
        key = self._scalar(event)
        if not isinstance(key, str):
            self._fail(
                event.start_mark,
                f"the key {short(event.value)} is not read as text; put it in quotes",
            )
        return key

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        if event.implicit[0]:
            try:
                return plain(event.value)
            except ValueError as error:
                self._fail(event.start_mark, str(error))
        if problem := forbidden(event.value):
            self._fail(event.start_mark, problem)
        return event.value

    def _filled(self, event: yaml.ScalarEvent, path: KeyPath) -> Scalar:
        self._scalar(event)
        try:
            value = filled(event.value, quoted=not event.implicit[0], room=self._room)
        except ValueError as error:
            where = f"{dotted(path)}: " if path else ""
            self._fail(event.start_mark, where + str(error))
        self._room -= len(str(value))
        if refers(event.value):
            self.references[path] = event.value
        return value

    def _unaliased(self) -> Iterator[yaml.Event]:
        """The events, with those of its anchor in place of each alias, and not too many of them."""
        count = 0
        known: dict[str, list[yaml.Event]] = {}
        recording: list[_Anchored] = []
        for event in self._untagged():
            events = [event]
            if isinstance(event, yaml.AliasEvent):
                events = self._named(event, known, recording)
            elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
                if event.anchor in known or any(a.name == event.anchor for a in recording):
                    name = short(event.anchor)
                    self._fail(event.start_mark, f"a second anchor {name}; choose another name")
                recording.append(_Anchored(event.anchor))
            count += len(events)
            if count > MAX_ITEMS:
                self._fail(event.start_mark, f"more than {MAX_ITEMS:,} items; shorten the file")
            for each in events:
                for anchored in recording:
                    anchored.events.append(each)
                    anchored.depth += isinstance(each, yaml.CollectionStartEvent)
                    anchored.depth -= isinstance(each, yaml.CollectionEndEvent)
                yield each
            while recording and not recording[-1].depth:
                done = recording.pop()
                known[done.name] = done.events

    def _named(
        self, alias: yaml.AliasEvent, known: dict[str, list[yaml.Event]], open_: list[_Anchored]
    ) -> list[yaml.Event]:
        name = str(alias.anchor)
        if any(anchored.name == name for anchored in open_):
            self._fail(
                alias.start_mark,
                f"the alias {short('*' + name)} stands inside what it names; write the value out",
            )
        if name not in known:
            self._fail(
                alias.start_mark,
                f"there is no anchor {short('&' + name)} above this alias; add it, or put text "
                "that starts with * in quotes",
            )
        first = copy.copy(known[name][0])
        first.start_mark = alias.start_mark
        return [first, *known[name][1:]]

    def _untagged(self) -> Iterator[yaml.Event]:
        for event in self._parsed():
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
                self._fail(event.start_mark, "tags (!name) are not supported; remove it")
            yield event

    def _parsed(self) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(self._script.text, Loader=LOADER)
        except yaml.MarkedYAMLError as error:
            self._fail_syntax(error)
        except (yaml.YAMLError, ValueError, OverflowError):
            # The parser in pure Python lets escapes such as "\UFFFFFFFF" out as OverflowError.
            self._fail(None, "this is not YAML; check the file")

    def _fail_syntax(self, error: yaml.MarkedYAMLError) -> NoReturn:
        problem = str(error.problem)
        text, mark = self._script.text, error.problem_mark
        at_end = mark is None or mark.index >= len(text.rstrip())
        if error.context_mark and (at_end or "expected ':'" in problem):
            mark = error.context_mark
        if mark and text[max(0, mark.index - 1) : mark.index + 1] == "${":
            self._fail(mark, 'a reference in [] or {} needs quotes; write "${NAME}"')
        known = (words for fragment, words in _SYNTAX.items() if fragment in problem)
        message = next(known, f"not YAML: {problem}; rewrite this part")
        failure = self._script.error(mark, message)
        if error.context == "while parsing a block collection":
            raise StrayKey(str(failure))
        raise failure

    def _fail(self, mark: Any, message: str) -> NoReturn:
        raise self._script.error(mark, message)
