"""What every canonical row must be, whatever it was made from: one pandera schema per type.

The rows themselves are not put into the table but what the rules ask of them, so a failure names
the fault and never shows the text.
"""

from collections.abc import Sequence

import pandas as pd
import pandera.pandas as pa

from aligntune.config.data import TaskType
from aligntune.data.rows import Message, Row

_SYSTEM = "(?:system )?"
_CONVERSATION = rf"{_SYSTEM}(?:user assistant )+"
_PROMPT = rf"{_SYSTEM}(?:user assistant )*user "
_ANSWER = r"assistant (?:user assistant )*"

_Rules = dict[str, pa.Column]


def _roles(pattern: str, words: str) -> pa.Column:
    return pa.Column(str, pa.Check.str_matches(f"^{pattern}$", error=words))


def _nothing(words: str) -> pa.Column:
    return pa.Column(int, pa.Check.equal_to(0, error=words))


_TEXT: _Rules = {
    "blank": _nothing("a turn is empty"),
    "broken": _nothing("text is not valid UTF-8 or holds a NUL"),
}
_PAIR: _Rules = {
    "prompt": _roles(_PROMPT, "the prompt's roles do not alternate and end with the user"),
    "chosen": _roles(_ANSWER, "the chosen answer is not the assistant's"),
    "rejected": _roles(_ANSWER, "the rejected answer is not the assistant's"),
    "same": _nothing("chosen equals rejected"),
}
SCHEMAS: dict[TaskType, pa.DataFrameSchema] = {
    "conversation": pa.DataFrameSchema(
        {
            "messages": _roles(
                _CONVERSATION, "roles do not alternate between user and assistant, assistant last"
            ),
            **_TEXT,
        },
        strict=True,
    ),
    "preference": pa.DataFrameSchema({**_PAIR, **_TEXT}, strict=True),
    "prompt": pa.DataFrameSchema({"prompt": _PAIR["prompt"], **_TEXT}, strict=True),
}


def faults(rows: Sequence[Row], task: TaskType) -> dict[int, str]:
    """Position -> what is wrong with that row; rows that are right are left out."""
    if not rows:
        return {}
    frame = pd.DataFrame([_facts(row) for row in rows])
    try:
        SCHEMAS[task].validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        found: dict[int, list[str]] = {}
        for position, check in zip(cases["index"], cases["check"], strict=True):
            found.setdefault(int(position), []).append(str(check))
        return {position: "; ".join(found[position]) for position in sorted(found)}
    return {}


def _facts(row: Row) -> dict[str, str | int]:
    lists = {name: value for name, value in row.items() if isinstance(value, list)}
    contents = [turn["content"] for turns in lists.values() for turn in turns]
    texts = [*contents, *(value for value in row.values() if isinstance(value, str))]
    facts: dict[str, str | int] = {name: _spoken(turns) for name, turns in lists.items()}
    facts["blank"] = sum(not content.strip() for content in contents)
    facts["broken"] = sum(map(_broken, texts))
    if "chosen" in row:
        facts["same"] = int(row["chosen"] == row["rejected"])
    return facts


def _spoken(turns: Sequence[Message]) -> str:
    """`user assistant `: who speaks, in order."""
    return "".join(f"{turn['role']} " for turn in turns)


def _broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return "\0" in text
