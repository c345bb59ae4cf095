"""Public dataset layouts -> canonical rows. To add one: a function, and a line in FORMATS.

A reader takes one row and returns a canonical one of its layout's type, or raises DataError with
the reason why this row is not one. What is not text it never guesses at.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aligntune.config.data import TaskType
from aligntune.data.rows import ANSWER, Message, Row
from aligntune.errors import DataError

ROLES = {
    "system": "system", "user": "user", "assistant": "assistant",
    "human": "user", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant",
}  # fmt: skip
"""Names of roles in public sets -> ours."""
_TURN = re.compile(r"\n\n(Human|Assistant):")


def arithmetic(row: Row) -> Row:
    """{question, worked, answer, wrong}: a right solution and a wrong one."""
    return {
        "prompt": _asked(row, "question"),
        "chosen": [_said(row["worked"], "worked")],
        "rejected": [_said(row["wrong"], "wrong")],
    }


def preference(row: Row) -> Row:
    """{prompt, chosen, rejected}: text or messages each, as in trl-lib's and most public pairs.

    Answers that are messages may start with the prompt.
    """
    prompt = _turns_or_question(row, "prompt")
    chosen, rejected = (_after(prompt, _answer(row[c], c), c) for c in ("chosen", "rejected"))
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def preference_messages(row: Row) -> Row:
    """{messages, chosen, rejected}, the earlier turns and two answers to them."""
    return preference({**row, "prompt": row["messages"]})


def preference_conversations(row: Row) -> Row:
    """{conversations, chosen, rejected}, as in llamafactory's dpo_en_demo."""
    return preference({**row, "prompt": row["conversations"]})


def transcripts(row: Row) -> Row:
    """{chosen, rejected}: two whole dialogues that differ in the last answer.

    Text as in Anthropic/hh-rlhf, "\\n\\nHuman: ...\\n\\nAssistant: ...", or messages.
    """
    prompt, chosen = _last_answer(row["chosen"], "chosen")
    other, rejected = _last_answer(row["rejected"], "rejected")
    if prompt != other:
        raise DataError("`chosen` and `rejected` answer different prompts")
    return {"prompt": prompt, "chosen": [chosen], "rejected": [rejected]}


def messages(row: Row) -> Row:
    """{messages}: role and content, or from and value."""
    return {"messages": _turns(row["messages"], "messages")}


def conversations(row: Row) -> Row:
    """{conversations}, the same under the name it has in ShareGPT."""
    return {"messages": _turns(row["conversations"], "conversations")}


def prompt_completion(row: Row) -> Row:
    """{prompt, completion}: text or messages each."""
    prompt = _turns_or_question(row, "prompt")
    return {"messages": prompt + _answer(row["completion"], "completion")}


def alpaca(row: Row) -> Row:
    """{instruction, input, output}, as in tatsu-lab/alpaca. `input` is often empty."""
    instruction = _text(row["instruction"], "instruction")
    given = _text(row["input"], "input") if row.get("input") else ""
    question = f"{instruction}\n\n{given}" if given.strip() else instruction
    asked = _asked({**row, "instruction": question}, "instruction")
    return {"messages": [*asked, _said(row["output"], "output")]}


def question_answer(row: Row) -> Row:
    """{question, answer}. As in openai/gsm8k, the result may follow `#### ` in the last line."""
    answer = _text(row["answer"], "answer")
    _, marker, result = answer.rpartition("#### ")
    final = result.strip() if marker and "\n" not in result.strip() else answer
    return {"messages": [*_asked(row, "question"), _said(answer, "answer")], ANSWER: final}


def prompt(row: Row) -> Row:
    """{prompt}: text or messages, with an `answer` where something can check one."""
    return {"prompt": _turns_or_question(row, "prompt")}


@dataclass(frozen=True)
class Format:
    """A layout: the columns it needs, the type of its rows, and its reader."""

    columns: tuple[str, ...]
    task: TaskType
    read: Callable[[Row], Row]


FORMATS: dict[str, Format] = {
    "arithmetic": Format(("question", "worked", "answer", "wrong"), "preference", arithmetic),
    "preference": Format(("prompt", "chosen", "rejected"), "preference", preference),
    "preference_messages": Format(
        ("messages", "chosen", "rejected"), "preference", preference_messages
    ),
    "preference_conversations": Format(
        ("conversations", "chosen", "rejected"), "preference", preference_conversations
    ),
    "transcripts": Format(("chosen", "rejected"), "preference", transcripts),
    "messages": Format(("messages",), "conversation", messages),
    "conversations": Format(("conversations",), "conversation", conversations),
    "prompt_completion": Format(("prompt", "completion"), "conversation", prompt_completion),
    "alpaca": Format(("instruction", "output"), "conversation", alpaca),
    "question_answer": Format(("question", "answer"), "conversation", question_answer),
    "prompt": Format(("prompt",), "prompt", prompt),
}
"""By name; the first whose columns are all there is taken."""
