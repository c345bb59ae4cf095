"""Messages out of the shapes that public sets give them."""

import re
from typing import Any

from aligntune.data.rows import Message, Row
from aligntune.errors import DataError

ROLES = {
    "system": "system", "user": "user", "assistant": "assistant",
    "human": "user", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant",
}  # fmt: skip
"""Names of roles in public sets -> ours."""
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_ANSWER = "\n\nAssistant:"


def text(value: Any, column: str) -> str:
    """Text as it is, and a number as text; DataError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    kinds = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    raise DataError(f"`{column}` is {kinds.get(type(value), type(value).__name__)}, not text")


def said(value: Any, column: str) -> Message:
    """An answer of the assistant's."""
    return {"role": "assistant", "content": text(value, column)}


def asked(row: Row, content: Any, column: str) -> list[Message]:
    """A question of the user's, after the row's `system` turn if it has one."""
    return [*_system(row), {"role": "user", "content": text(content, column)}]


def turns(value: Any, column: str) -> list[Message]:
    """A list of messages: {role, content} or {from, value}."""
    if not isinstance(value, list):
        raise DataError(f"`{column}` is not a list of messages")
    return [_message(item, column) for item in value]


def prompt_turns(row: Row, column: str) -> list[Message]:
    """A prompt that is text or messages, after the row's `system` turn if it has none itself."""
    if not isinstance(row[column], list):
        return asked(row, row[column], column)
    found = turns(row[column], column)
    return found if found and found[0]["role"] == "system" else [*_system(row), *found]


def answer_turns(value: Any, column: str) -> list[Message]:
    """An answer that is text, one message, or messages."""
    if isinstance(value, dict):
        return [_message(value, column)]
    return turns(value, column) if isinstance(value, list) else [said(value, column)]


def after(prompt: list[Message], answer: list[Message], column: str) -> list[Message]:
    """`answer` without the prompt, which many sets repeat at its start."""
    for start in (prompt, [turn for turn in prompt if turn["role"] != "system"]):
        if len(answer) > len(start) and answer[: len(start)] == start:
            answer = answer[len(start) :]
    if answer and answer[0]["role"] != "assistant":
        raise DataError(f"`{column}` does not continue the prompt")
    return answer


def last_answer(value: Any, column: str) -> tuple[list[Message], Message]:
    """A whole dialogue as (what comes before the last answer, that answer)."""
    if isinstance(value, list):
        found = turns(value, column)
        if not found:
            raise DataError(f"`{column}` has no messages")
        return found[:-1], found[-1]
    before, marker, answer = text(value, column).rpartition(_HH_ANSWER)
    start, *pieces = _HH_TURN.split(before)
    if not marker or start.strip() or not pieces:
        raise DataError(f"`{column}` is not a transcript of `\\n\\nHuman:` and `\\n\\nAssistant:`")
    if _HH_TURN.search(answer):
        raise DataError(f"`{column}` does not end with an answer")
    spoken = zip(pieces[::2], pieces[1::2], strict=True)
    earlier = [{"role": ROLES[who.lower()], "content": what.strip()} for who, what in spoken]
    return earlier, {"role": "assistant", "content": answer.strip()}


def _system(row: Row) -> list[Message]:
    if not row.get("system"):
        return []
    return [{"role": "system", "content": text(row["system"], "system")}]


def _message(item: Any, column: str) -> Message:
    if not isinstance(item, dict):
        raise DataError(f"`{column}` holds something that is not a message")
    role = item.get("role", item.get("from"))
    content = item.get("content", item.get("value"))
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(f"`{column}` has a turn of {str(role)[:20]!r}, not of {', '.join(ROLES)}")
    return {"role": ROLES[role], "content": text(content, f"{column}")}
