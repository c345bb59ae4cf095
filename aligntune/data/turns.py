"""Messages out of the shapes that public sets give them."""

import json
import re
from typing import Any

from aligntune.data.rows import UNLEARNED, WEIGHT, Message, Row
from aligntune.errors import DataError

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant",
    "bot": "assistant", "ai": "assistant", "function_call": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool",
}  # fmt: skip
"""Names of roles in public sets, in lower case -> ours."""
THOUGHTS = ("reasoning_content", "thinking")
"""What templates of reasoning models read beside an answer's content, under the name they know."""
_LEARNED = ("train", "training", "loss")
"""What other libraries call whether an answer is learned: axolotl's two, and ms-swift's."""
_PLAIN = 2
"""Keys of a message that says nothing but who said what."""
_NAMED = {"role", "from"}
_PRINTED = re.compile(r"\[\{'(?:role|content|from|value)':")
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_QUESTION, _HH_ANSWER = "\n\nHuman:", "\n\nAssistant:"
_NO_TRANSCRIPT = "`{}` is not a transcript of `\\n\\nHuman:` and `\\n\\nAssistant:`"
_KINDS = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}


def text(value: Any, column: str) -> str:
    """Text as it is, and a number as text; DataError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        # A column of whole numbers with a gap in it is often written as one of floats.
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)
    raise DataError(f"`{column}` is {_KINDS.get(type(value), type(value).__name__)}, not text")


def said(value: Any, column: str) -> Message:
    """An answer of the assistant's."""
    return {"role": "assistant", "content": text(value, column)}


def asked(row: Row, content: Any, column: str) -> list[Message]:
    """A question of the user's, after the row's `system` turn if it has one."""
    question = {"role": "user", "content": text(content, column)}
    return [*_system(row), question] if row.get("system") else [question]


def turns(value: Any, column: str) -> list[Message]:
    """A list of messages: {role, content} or {from, value}."""
    value = listed(value, column)
    if not isinstance(value, list):
        raise DataError(f"`{column}` is not a list of messages")
    found = [turn for item in value for turn in _messages(item, column)]
    return [turn for turn in found if turn["role"] != "system" or turn["content"].strip()]


def dialogue(row: Row, column: str) -> list[Message]:
    """A list of messages, after the row's `system` turn if it has none itself."""
    found = turns(row[column], column)
    return found if found and found[0]["role"] == "system" else [*_system(row), *found]


def prompt_turns(row: Row, column: str) -> list[Message]:
    """A prompt that is text or messages, after the row's `system` turn if it has none itself."""
    given = listed(row[column], column)
    if isinstance(given, list):
        return dialogue(row, column)
    if isinstance(given, str) and given.startswith(_HH_QUESTION):
        before, marker, rest = given.rpartition(_HH_ANSWER)
        if marker and not rest.strip():
            return [*_system(row), *_transcript(before, column)]
    return asked(row, given, column)


def answer_turns(value: Any, column: str) -> list[Message]:
    """An answer that is text, one message, or messages."""
    value = listed(value, column)
    if isinstance(value, dict):
        return _messages(value, column)
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
    value = listed(value, column)
    if isinstance(value, list):
        found = turns(value, column)
        if not found:
            raise DataError(f"`{column}` has no messages")
        return found[:-1], found[-1]
    before, marker, answer = text(value, column).rpartition(_HH_ANSWER)
    earlier = _transcript(before, column) if marker else []
    if not earlier:
        raise DataError(_NO_TRANSCRIPT.format(column))
    if _HH_TURN.search(answer):
        raise DataError(f"`{column}` does not end with an answer")
    return earlier, {"role": "assistant", "content": answer.strip()}


def _transcript(value: str, column: str) -> list[Message]:
    start, *pieces = _HH_TURN.split(value)
    if start.strip() or not pieces:
        raise DataError(_NO_TRANSCRIPT.format(column))
    spoken = zip(pieces[::2], pieces[1::2], strict=True)
    return [{"role": ROLES[who.lower()], "content": what.strip()} for who, what in spoken]


def _system(row: Row) -> list[Message]:
    said_ = text(row["system"], "system") if row.get("system") else ""
    return [{"role": "system", "content": said_}] if said_.strip() else []


def listed(value: Any, column: str) -> Any:
    """The messages that text is the JSON of, as tables without lists have them; else the value."""
    if not isinstance(value, str) or not value.startswith("[{"):
        return value
    if _PRINTED.match(value):
        raise DataError(f"`{column}` has messages as Python prints them; write them as JSON")
    try:
        found = json.loads(value)
    except ValueError:
        return value
    spoken = all(isinstance(item, dict) and _NAMED & item.keys() for item in found)
    return found if spoken else value


def _messages(item: Any, column: str) -> list[Message]:
    if not isinstance(item, dict):
        raise DataError(f"`{column}` holds something that is not a message")
    if item.keys() >= {"input", "output"}:  # as in LDJnr/Capybara
        question = {"role": "user", "content": text(item["input"], column)}
        return [question, said(item["output"], column)]
    made = _message(item, column)
    if made["role"] == "assistant":
        made |= {name: item[name] for name in THOUGHTS if item.get(name)}
        if len(item) > _PLAIN and _unlearned(item):
            made[WEIGHT] = UNLEARNED
    return [made]


def _unlearned(item: Row) -> bool:
    return item.get(WEIGHT) in (0, UNLEARNED) or any(item.get(name) is False for name in _LEARNED)


def _message(item: Row, column: str) -> Message:
    given = item["role"] if "role" in item else item.get("from")
    content = item["content"] if "content" in item else item.get("value")
    role = ROLES.get(given) or ROLES.get(given.lower()) if isinstance(given, str) else None
    if role is None:
        raise DataError(f"`{column}` has a turn of {str(given)[:20]!r}, not of {', '.join(ROLES)}")
    if given == "function_call":
        return {"role": role, "content": "", "tool_calls": _calls(content, column)}
    if isinstance(content, list):
        content = _parts(content, column)
    if calls := item.get("tool_calls") or item.get("function_call"):
        return {"role": role, "content": content or "", "tool_calls": _calls(calls, column)}
    made = {"role": role, "content": text(content, column)}
    if role == "tool" and isinstance(item.get("name"), str):
        made["name"] = item["name"]
    return made


def _parts(parts: list[Any], column: str) -> str:
    """Content in parts, all of them text."""
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise DataError(f"`{column}` has a turn with parts that are not text")
    return "".join(part["text"] for part in parts)


def _calls(value: Any, column: str) -> str:
    """Tool calls, as objects or JSON, in the shape that chat templates read."""
    found = decoded(value, column, "tool calls")
    calls = [_call(call, column) for call in (found if isinstance(found, list) else [found])]
    return json.dumps(calls, ensure_ascii=False, sort_keys=True)


def _call(call: Any, column: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(f"`{column}` has a tool call without a name")
    arguments = decoded(function.get("arguments") or {}, column, "a tool call's arguments")
    return {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def decoded(value: Any, column: str, what: str) -> Any:
    """JSON that may have been written as text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise DataError(f"`{column}`: {what} are not valid JSON") from None


def tools(value: Any, column: str) -> str:
    """Tools as JSON, in the shape that chat templates read; empty where there are none."""
    found = decoded(value, column, "the tools")
    if found is None:
        return ""
    if not isinstance(found, list):
        raise DataError(f"`{column}` is not a list")
    made = [
        {"type": "function", "function": tool}
        if isinstance(tool, dict) and "name" in tool
        else tool
        for tool in found
    ]
    return json.dumps(made, ensure_ascii=False, sort_keys=True) if made else ""
