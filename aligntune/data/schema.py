"""What every canonical row must be, whatever it was made from: one pandera schema per type.

The rows themselves are not put into the table but what the rules ask of them, so a failure names
the fault and never shows the text.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import pandas as pd
import pandera.pandas as pa

from aligntune.config.data import TaskType
from aligntune.data.rows import COLUMNS, Message, Row

Kind = tuple[str | bool, ...]
"""What the rules ask of a row, in the order of their columns."""
LONGEST = 1_000_000
"""Characters of a turn."""
_PLAIN = 2
"""Parts of a turn that is no call of a tool and no result: role and content."""
_SAID = r"(?:(?:[ac]t+)*a)"
"""An answer, perhaps after calls of tools and what they returned."""
_PROMPT = rf"s?(?:u{_SAID})*u(?:[ac]t+)*"
_ANSWER = rf"(?:{_SAID}|c)(?:u{_SAID})*"
_CONVERSATION = rf"a|s?(?:u{_SAID})*u(?:[ac]t+)*[ac]"
_PATTERNS = {
    "messages": (
        _CONVERSATION, "roles do not alternate between user and assistant, assistant last"
    ),
    "prompt": (_PROMPT, "the prompt's roles do not alternate and end with the user"),
    "chosen": (_ANSWER, "the chosen answer is not the assistant's"),
    "rejected": (_ANSWER, "the rejected answer is not the assistant's"),
    "completion": (_ANSWER, "the completion is not the assistant's"),
}  # fmt: skip
"""Column -> who may speak in it, by the letters of `_spoken`, and what is wrong else."""


def _roles(name: str) -> pa.Column:
    pattern, words = _PATTERNS[name]
    return pa.Column(str, pa.Check.str_matches(f"^(?:{pattern})$", error=words))


def _never(words: str) -> pa.Column:
    return pa.Column(bool, pa.Check.equal_to(False, error=words))


_TEXT = {
    "blank": _never("a turn is empty"),
    "broken": _never("text is not valid UTF-8 or holds a NUL"),
    "replaced": _never("text holds U+FFFD, which a wrong encoding leaves behind"),
    "long": _never(f"a turn has more than {LONGEST:,} characters"),
}


@cache
def _schema(task: TaskType) -> pa.DataFrameSchema:
    rules = {name: _roles(name) for name in COLUMNS[task]}
    if task == "preference":
        rules["same"] = _never("chosen equals rejected")
    if task == "unpaired":
        rules["unlabelled"] = _never("`label` is neither true nor false")
    return pa.DataFrameSchema({**rules, **_TEXT}, strict=True)


def faults(rows: Sequence[Row], task: TaskType) -> dict[int, str]:
    """Position -> what is wrong with that row; rows that are right are left out."""
    if not rows:
        return {}
    facts = _facts(rows, task)
    kinds = list(zip(*facts.values(), strict=True))
    wrong = _wrong(task, tuple(facts), tuple(dict.fromkeys(kinds)))
    if not wrong:
        return {}
    return {position: wrong[kind] for position, kind in enumerate(kinds) if kind in wrong}


@lru_cache(maxsize=8)  # thousands of rows are of few kinds, and the next batch's of the same
def _wrong(task: TaskType, names: tuple[str, ...], kinds: tuple[Kind, ...]) -> dict[Kind, str]:
    """What is wrong with rows of each kind; kinds that are right are left out."""
    try:
        _schema(task).validate(pd.DataFrame(list(kinds), columns=list(names)), lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        found: dict[int, list[str]] = {}
        for position, check in zip(cases["index"], cases["check"], strict=True):
            found.setdefault(int(position), []).append(str(check))
        return {kinds[position]: "; ".join(words) for position, words in found.items()}
    return {}


def _facts(rows: Sequence[Row], task: TaskType) -> dict[str, list[Any]]:
    facts: dict[str, list[Any]] = {
        name: [_spoken(row[name]) for row in rows] for name in COLUMNS[task]
    }
    if task == "preference":
        facts["same"] = [row["chosen"] == row["rejected"] for row in rows]
    if task == "unpaired":
        facts["unlabelled"] = [not isinstance(row["label"], bool) for row in rows]
    return facts | _flags(rows, COLUMNS[task])


def _flags(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, list[bool]]:
    """By name of _TEXT, whether it is so in each row. A batch without any such text is the rule, so
    it is looked at as a whole first."""
    turns = [turn for name in columns for row in rows for turn in row[name]]
    others = [value for row in rows for value in row.values() if isinstance(value, str)]
    others += [value for turn in turns if len(turn) > _PLAIN for value in turn.values()]
    if _sound([turn["content"] for turn in turns], others):
        return {name: [False] * len(rows) for name in _TEXT}
    found = [_row_flags(row, columns) for row in rows]
    return dict(zip(_TEXT, map(list, zip(*found, strict=True)), strict=True))


def _sound(contents: Sequence[str], others: Sequence[str]) -> bool:
    text = "".join([*contents, *others])
    if "\0" in text or "\ufffd" in text or _half(text):
        return False
    return all(map(str.strip, contents)) and max(map(len, contents), default=0) <= LONGEST


def _half(text: str) -> bool:
    """Whether it has half of a character, which UTF-8 cannot."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _spoken(turns: Sequence[Message]) -> str:
    """Who speaks, in order, a letter each: `sua`, and `c` for an assistant that calls tools."""
    return "".join(["c" if "tool_calls" in turn else turn["role"][0] for turn in turns])


def _row_flags(row: Row, columns: Sequence[str]) -> tuple[bool, bool, bool, bool]:
    """(blank, broken, replaced, long)."""
    turns = [turn for name in columns for turn in row[name]]
    contents = [turn["content"] for turn in turns]
    blank = any(not turn["content"].strip() and "tool_calls" not in turn for turn in turns)
    others = [value for value in row.values() if isinstance(value, str)]
    text = "".join([*contents, *others, *(value for turn in turns for value in turn.values())])
    long = max(map(len, contents), default=0) > LONGEST
    return blank, "\0" in text or _half(text), "\ufffd" in text, long
