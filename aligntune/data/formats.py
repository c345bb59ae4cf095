"""Public dataset layouts -> canonical rows. To add one: a function, and a line in FORMATS.

A reader takes one row and returns a canonical one of its layout's type, or raises DataError with
the reason why this row is not one. What is not text it never guesses at.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aligntune.config.data import TaskType
from aligntune.config.document import printable
from aligntune.data.rows import ANSWER, Row, prompt_of
from aligntune.data.turns import (
    after,
    answer_turns,
    asked,
    last_answer,
    prompt_turns,
    said,
    text,
    turns,
)
from aligntune.errors import DataError


def arithmetic(row: Row) -> Row:
    """{question, worked, answer, wrong}: a right solution and a wrong one."""
    return {
        "prompt": asked(row, row["question"], "question"),
        "chosen": [said(row["worked"], "worked")],
        "rejected": [said(row["wrong"], "wrong")],
    }


def preference(row: Row) -> Row:
    """{prompt, chosen, rejected}: text or messages each, as in trl-lib's and most public pairs.

    Answers that are messages may start with the prompt.
    """
    prompt = prompt_turns(row, "prompt")
    chosen, rejected = (after(prompt, answer_turns(row[c], c), c) for c in ("chosen", "rejected"))
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def preference_messages(row: Row) -> Row:
    """{messages, chosen, rejected}, the earlier turns and two answers to them."""
    return preference({**row, "prompt": row["messages"]})


def preference_question(row: Row) -> Row:
    """{question, chosen, rejected}, often with `system`, as in Intel/orca_dpo_pairs."""
    return preference({**row, "prompt": row["question"]})


def preference_conversations(row: Row) -> Row:
    """{conversations, chosen, rejected}, as in llamafactory's dpo_en_demo."""
    return preference({**row, "prompt": row["conversations"]})


def transcripts(row: Row) -> Row:
    """{chosen, rejected}: two whole dialogues that differ in the last answer.

    Text as in Anthropic/hh-rlhf, "\\n\\nHuman: ...\\n\\nAssistant: ...", or messages.
    """
    prompt, chosen = last_answer(row["chosen"], "chosen")
    other, rejected = last_answer(row["rejected"], "rejected")
    if prompt != other:
        raise DataError("`chosen` and `rejected` answer different prompts")
    return {"prompt": prompt, "chosen": [chosen], "rejected": [rejected]}


def messages(row: Row) -> Row:
    """{messages}: role and content, or from and value."""
    return {"messages": turns(row["messages"], "messages")}


def conversations(row: Row) -> Row:
    """{conversations}, the same under the name it has in ShareGPT."""
    return {"messages": turns(row["conversations"], "conversations")}


def prompt_completion(row: Row) -> Row:
    """{prompt, completion}: text or messages each."""
    prompt = prompt_turns(row, "prompt")
    return {"messages": prompt + answer_turns(row["completion"], "completion")}


def alpaca(row: Row) -> Row:
    """{instruction, input, output}, as in tatsu-lab/alpaca. `input` is often empty."""
    instruction = text(row["instruction"], "instruction")
    given = text(row["input"], "input") if row.get("input") else ""
    question = f"{instruction}\n\n{given}" if given.strip() else instruction
    prompt = asked(row, question, "instruction")
    return {"messages": [*prompt, said(row["output"], "output")]}


def question_answer(row: Row) -> Row:
    """{question, answer}. As in openai/gsm8k, the result may follow `####` in the last line."""
    answer = text(row["answer"], "answer")
    _, marker, result = answer.rpartition("####")
    final = result.strip() if marker and "\n" not in result.strip() else answer
    question = asked(row, row["question"], "question")
    return {"messages": [*question, said(answer, "answer")], ANSWER: final}


def prompt(row: Row) -> Row:
    """{prompt}: text or messages, with an `answer` where something can check one."""
    return {"prompt": prompt_turns(row, "prompt")}


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
    "preference_question": Format(
        ("question", "chosen", "rejected"), "preference", preference_question
    ),
    "transcripts": Format(("chosen", "rejected"), "preference", transcripts),
    "messages": Format(("messages",), "conversation", messages),
    "conversations": Format(("conversations",), "conversation", conversations),
    "prompt_completion": Format(("prompt", "completion"), "conversation", prompt_completion),
    "alpaca": Format(("instruction", "output"), "conversation", alpaca),
    "question_answer": Format(("question", "answer"), "conversation", question_answer),
    "prompt": Format(("prompt",), "prompt", prompt),
}
"""By name. The first that fits is taken, so one with more columns stands before one with fewer."""


def _without_answer(row: Row) -> Row:
    """A conversation's last answer becomes the reference, unless the row has one."""
    last = row["messages"][-1] if row["messages"] else {"role": "user"}
    if last["role"] != "assistant":
        return {"prompt": row["messages"]}
    return {"prompt": prompt_of(row), ANSWER: last["content"]}


def _answered(row: Row) -> Row:
    if ANSWER not in row:
        raise DataError("there is no `answer` to imitate")
    return {"messages": [*row["prompt"], said(row[ANSWER], ANSWER)]}


CONVERSIONS: dict[tuple[TaskType, TaskType], Callable[[Row], Row]] = {
    ("conversation", "prompt"): _without_answer,
    ("preference", "conversation"): lambda row: {"messages": [*row["prompt"], *row["chosen"]]},
    ("preference", "prompt"): lambda row: {"prompt": row["prompt"]},
    ("prompt", "conversation"): _answered,
}
"""(from, to) -> the other columns of the same row; a reference answer is kept."""


@dataclass(frozen=True)
class Reader:
    """How to make canonical rows of one type from a source's rows."""

    layout: str
    """Its name in FORMATS."""
    task: TaskType

    def __call__(self, row: Row) -> Row:
        """The canonical row, or a DataError with the reason why there is none."""
        found = FORMATS[self.layout]
        for column in found.columns:
            if row.get(column) is None:
                raise DataError(f"`{column}` is missing")
        made = found.read(row)
        if ANSWER not in made and (answer := _reference(row)):
            made[ANSWER] = answer
        if self.task != found.task:
            converted = CONVERSIONS[found.task, self.task](made)
            kept = {ANSWER: made[ANSWER]} if ANSWER in made else {}
            made = converted | kept
        return made


def reader(
    columns: Iterable[str], task: TaskType | None, kind: TaskType | None = None
) -> Reader | None:
    """How rows with these columns are read as `task`, or as what they are; None if they cannot.

    Where several layouts fit, one whose rows are of that `kind` by themselves goes first.
    """
    there = set(columns)
    for layout, known in sorted(FORMATS.items(), key=lambda item: item[1].task != kind):
        if there.issuperset(known.columns) and _becomes(known.task, task, there):
            return Reader(layout, task or known.task)
    return None


def _becomes(natural: TaskType, task: TaskType | None, columns: set[str]) -> bool:
    if (natural, task) == ("prompt", "conversation"):
        return ANSWER in columns
    return task in (None, natural) or (natural, task) in CONVERSIONS


def _reference(row: Row) -> str:
    """The row's `answer` where that is text or a number, else nothing."""
    answer = row.get(ANSWER)
    usable = isinstance(answer, str | int | float) and not isinstance(answer, bool)
    return str(answer).strip() if usable else ""


NEEDED: dict[TaskType, str] = {
    "conversation": "{prompt: <column>, completion: <column>}",
    "preference": "{prompt: <column>, chosen: <column>, rejected: <column>}",
    "prompt": "{prompt: <column>, answer: <column>}",
}
"""The mapping to write for rows in no known layout."""


def mismatch(name: str, columns: Iterable[str], task: TaskType | None, rows: Iterable[Row]) -> str:
    """What to say of a source whose columns cannot be read as `task`."""
    found = reader(columns, None)
    known = f", which make {found.task} rows" if found else ", which are no layout we know"
    wanted = NEEDED[task] if task else " or ".join(NEEDED.values())
    shown = "".join(f"\n  row {i}: {_shown(row)}" for i, row in enumerate(rows, start=1))
    return (
        f"dataset {name!r} has the columns {', '.join(columns)}{known}, "
        f"but {task or 'conversation, preference or prompt'} rows are needed; say which column is "
        f"what with `columns: {wanted}`, or choose another dataset{shown}"
    )


def _shown(row: Row) -> str:
    """Every cell on one line, cut to 80 characters."""
    cells = ((name, printable(" ".join(str(value).split()))) for name, value in row.items())
    return ", ".join(
        f"{name}={cell if len(cell) <= _CELL else cell[: _CELL - 1] + '…'}" for name, cell in cells
    )


_CELL = 80
