"""Which layout a source has, by its columns. To add one: a function in layouts.py, and a line in
FORMATS."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from aligntune.config.data import TaskType
from aligntune.config.naming import printable
from aligntune.data import layouts
from aligntune.data.extra import extra, refuse_media
from aligntune.data.rows import ANSWER, RATED, TOOLS, Row, prompt_of
from aligntune.data.turns import said, text, tools
from aligntune.errors import ConfigError, DataError, unknown


@dataclass(frozen=True)
class Format:
    """A layout: the columns it needs, the type of its rows, and its reader."""

    columns: tuple[str, ...]
    task: TaskType
    read: Callable[[Row], Row]
    optional: tuple[str, ...] = ()
    """Columns that it reads where they are there, besides `system`, `tools` and `answer`."""
    without: tuple[str, ...] = ()
    """Columns with which it is something else."""
    on_request: bool = False
    """Whether its columns say too little, so that rows of its type have to be asked for."""

    @cached_property
    def used(self) -> frozenset[str]:
        """Every column that it reads."""
        return frozenset((*self.columns, *self.optional, *ALWAYS))


_PROMPTS = ("instruction", "question", "query", "problem", "user", "input")
_TAGGED = ("kto_tag",)
FORMATS: dict[str, Format] = {
    "arithmetic": Format(
        ("question", "worked", "answer", "wrong"), "preference", layouts.arithmetic
    ),
    "preference": Format(("prompt", "chosen", "rejected"), "preference", layouts.preference),
    "preference_openai": Format(
        ("input", "preferred_output", "non_preferred_output"),
        "preference",
        layouts.preference_openai,
    ),
    "preference_messages": Format(
        ("messages", "chosen", "rejected"), "preference", layouts.preference_messages
    ),
    "preference_conversations": Format(
        ("conversations", "chosen", "rejected"), "preference", layouts.preference_conversations
    ),
    "preference_question": Format(
        ("question", "chosen", "rejected"),
        "preference",
        layouts.preference_question,
        ("context",),
    ),
    "preference_instruction": Format(
        ("instruction", "chosen", "rejected"),
        "preference",
        layouts.preference_instruction,
        ("input",),
    ),
    "transcripts": Format(
        ("chosen", "rejected"), "preference", layouts.transcripts, without=_PROMPTS
    ),
    "ranked": Format(("prompt", "responses", "ranks"), "preference", layouts.ranked),
    "rated": Format(("prompt", "responses", "scores"), "preference", layouts.rated),
    "ultrafeedback": Format(("instruction", "completions"), "preference", layouts.ultrafeedback),
    "valued": Format(("prompt", "answers"), "preference", layouts.valued, on_request=True),
    "unpaired": Format(("prompt", "completion", "label"), "unpaired", layouts.unpaired),
    "unpaired_messages": Format(("messages", "label"), "unpaired", layouts.unpaired_messages),
    "unpaired_conversations": Format(
        ("conversations", "label"), "unpaired", layouts.unpaired_conversations
    ),
    "unpaired_instruction": Format(
        ("instruction", "output", "kto_tag"), "unpaired", layouts.unpaired_instruction, ("input",)
    ),
    "messages": Format(("messages",), "conversation", layouts.messages, without=_TAGGED),
    "conversations": Format(
        ("conversations",), "conversation", layouts.conversations, without=_TAGGED
    ),
    "prompt_completion": Format(
        ("prompt", "completion"), "conversation", layouts.prompt_completion, without=_TAGGED
    ),
    "alpaca": Format(
        ("instruction", "output"), "conversation", layouts.alpaca, ("input", "history")
    ),
    "question_solution": Format(
        ("question", "solution", "answer"), "conversation", layouts.question_solution
    ),
    "question_answer": Format(
        ("question", "answer"), "conversation", layouts.question_answer, ("context",)
    ),
    "prompt": Format(("prompt",), "prompt", layouts.prompt),
    "text": Format(
        ("text",), "conversation", layouts.plain_text, without=("parent_id", "role", "code")
    ),
}
"""By name. The first that fits is taken, so one with more columns stands before one with fewer."""

ALIASES: dict[str, tuple[str, ...]] = {
    "prompt": _PROMPTS,
    "question": ("problem", "query"),
    "instruction": ("prompt", "question", "query"),
    "input": ("context",),
    "output": ("response", "completion"),
    "completion": ("response", "output", "reply", "target", "assistant"),
    "chosen": ("chosen_response", "response_chosen", "preferred", "accepted", "winner"),
    "rejected": ("rejected_response", "response_rejected", "dispreferred", "loser"),
    "messages": ("conversation", "dialogue", "dialog", "turns", "chat"),
    "answer": ("solution", "ground_truth", "final_answer", "reference_answer", "target"),
    "system": ("system_prompt", "system_message"),
    "label": ("labels", "kto_tag"),
    "responses": ("answers", "candidates", "completions"),
    TOOLS: ("functions",),
    "ranks": ("ranking", "rank"),
    "scores": ("ratings", "rewards"),
    "text": ("content", "document"),
}
"""A column of a layout -> what it is called in other public sets, taken where only one of them is
there and the layout's own name is not; letter case and what is between words aside."""
ALWAYS = ("system", TOOLS, ANSWER)
"""What any layout may have."""


def _without_answer(row: Row) -> Row:
    """A conversation's last answer becomes the reference, unless the row has one."""
    last = row["messages"][-1] if row["messages"] else {"role": "user"}
    if last["role"] != "assistant":
        return {"prompt": row["messages"]}
    if len(row["messages"]) == 1:
        raise DataError("plain text has no prompt")
    return {"prompt": prompt_of(row), ANSWER: last["content"]}


def _answered(row: Row) -> Row:
    if ANSWER not in row:
        raise DataError("there is no `answer` to imitate")
    return {"messages": [*row["prompt"], said(row[ANSWER], ANSWER)]}


def _good(row: Row) -> Row:
    if not row["label"]:
        raise DataError("`label` says that this answer is a bad one, and it would be imitated")
    return {"messages": [*row["prompt"], *row["completion"]]}


CONVERSIONS: dict[tuple[TaskType, TaskType], Callable[[Row], Row]] = {
    ("conversation", "prompt"): _without_answer,
    ("preference", "conversation"): lambda row: {"messages": [*row["prompt"], *row["chosen"]]},
    ("preference", "prompt"): lambda row: {"prompt": row["prompt"]},
    ("unpaired", "prompt"): lambda row: {"prompt": row["prompt"]},
    ("unpaired", "conversation"): _good,
    ("prompt", "conversation"): _answered,
}
"""(from, to) -> the other columns of the same row; a reference answer is kept."""


@dataclass(frozen=True)
class Reader:
    """How to make canonical rows of one type from a source's rows."""

    layout: str
    """Its name in FORMATS."""
    task: TaskType
    names: tuple[tuple[str, str], ...] = ()
    """(column of the layout, what the source calls it), where these differ."""

    def known_of(self, columns: Iterable[str]) -> int:
        """How many of the columns it reads."""
        return len(FORMATS[self.layout].used.intersection(columns)) + len(self.names)

    def unread(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Those of a source's columns that no message is made of."""
        read = FORMATS[self.layout].used.union(own for _, own in self.names)
        return tuple(column for column in columns if column not in read)

    def __call__(self, row: Row) -> Row:
        """The canonical row, or a DataError with the reason why there is none."""
        found = FORMATS[self.layout]
        row = self._complete(row, found)
        made = found.read(row)
        rated = {}
        if found.task == "preference":
            rated = {name: made.pop(name) for name in made.keys() & RATED}
        if ANSWER not in made and (answer := _reference(row)):
            made[ANSWER] = answer
        if self.task != found.task:
            converted = CONVERSIONS[found.task, self.task](made)
            kept = {name: made[name] for name in (ANSWER, TOOLS) if name in made}
            made = converted | kept
        if row.get(TOOLS) and (known := tools(row[TOOLS], TOOLS)):
            made[TOOLS] = known
        others = rated if self.task == "preference" else {}
        if not row.keys() <= found.used:
            unused = row.keys() - found.used
            others |= {name: row[name] for name in unused if row[name] is not None}
            refuse_media(others)
        return made | extra(others) if others else made

    def _complete(self, row: Row, found: Format) -> Row:
        """The row with the layout's names and without NaN, or a DataError for what is missing."""
        for value in row.values():
            if isinstance(value, float) and value != value:
                row = {name: value for name, value in row.items() if value == value}
                break
        if self.names:
            row = _renamed(row, self.names)
        for column in found.columns:
            if row.get(column) is None:
                raise DataError(f"`{dict(self.names).get(column, column)}` is missing")
        return row


def _renamed(row: Row, names: Iterable[tuple[str, str]]) -> Row:
    row = dict(row)
    for name, own in names:
        if own in row:
            row[name] = row.pop(own)
    return row


def reader(
    columns: Iterable[str],
    task: TaskType | None,
    kind: TaskType | None = None,
    layout: str | None = None,
) -> Reader | None:
    """How rows with these columns are read as `task`, or as what they are; None if they cannot.

    Only `layout` is tried where it is given. Where several fit, one whose columns have its own
    names goes first, and of these one whose rows are of that `kind` by themselves; where columns
    have other names, the one that knows most of them.
    """
    if layout is not None and layout not in FORMATS:
        raise ConfigError(unknown("format", layout, FORMATS))
    there = list(columns)
    tried = {layout: FORMATS[layout]} if layout else FORMATS
    ordered = sorted(tried.items(), key=lambda item: item[1].task != kind)
    for last, aliases in product((False, True), repeat=2):
        fitting = [
            Reader(name, task or known.task, tuple(sorted(names.items())))
            for name, known in ordered
            if (layout or _may_be(known, task, there))
            and (names := _names(known, there, aliases=aliases)) is not None
            and _last_resort(known, task, {*there, *names}) == last
            and _becomes(known.task, task, {*there, *names})
        ]
        if fitting and not aliases:
            return fitting[0]
        if fitting:
            return max(fitting, key=lambda found: found.known_of(there))
    return None


def _may_be(known: Format, task: TaskType | None, columns: Iterable[str]) -> bool:
    if known.on_request and task != known.task:
        return False
    return not set(known.without).intersection(map(_plain, columns))


def _last_resort(known: Format, task: TaskType | None, columns: set[str]) -> bool:
    """Whether another layout, under whatever names, says more of what is learned: text in no
    template, a bare reference answer, and a prompt without one."""
    if known.task == "prompt":
        return task == "conversation" or (task is None and ANSWER not in columns)
    return known.read is layouts.plain_text


def _names(known: Format, columns: Sequence[str], *, aliases: bool) -> dict[str, str] | None:
    """Columns of the layout -> the source's names for them where these differ; None if one that is
    needed is not there."""
    found: dict[str, str] = {}
    taken = set(known.columns) & set(columns)
    for column in dict.fromkeys((*known.columns, *known.optional, *ALWAYS)):
        if column in columns:
            continue
        free = [name for name in columns if name not in taken]
        others = [name for name in free if _plain(name) == column] or [
            name for name in free if _plain(name) in ALIASES.get(column, ())
        ]
        needed = column in known.columns
        if len(others) == 1 and (aliases or not needed):
            found[column] = others[0]
            taken.add(others[0])
        elif needed:
            return None
    return found


def _plain(name: str) -> str:
    """As a person would write the same heading: ` Chosen Response` is `chosen_response`."""
    return "_".join(name.casefold().replace("-", " ").split())


def _becomes(natural: TaskType, task: TaskType | None, columns: set[str]) -> bool:
    if (natural, task) == ("prompt", "conversation"):
        return ANSWER in columns
    return task in (None, natural) or (natural, task) in CONVERSIONS


def _reference(row: Row) -> str:
    """The row's `answer` where that is text or a number, else nothing."""
    answer = row.get(ANSWER)
    if answer is None:
        judge = row.get("reward_model")
        if not isinstance(judge, dict):
            return ""
        answer = judge.get("ground_truth")  # as in veRL's sets
    usable = isinstance(answer, str | int | float) and not isinstance(answer, bool)
    return text(answer, ANSWER).strip() if usable else ""


NEEDED: dict[TaskType, str] = {
    "conversation": "{prompt: <column>, completion: <column>}",
    "preference": "{prompt: <column>, chosen: <column>, rejected: <column>}",
    "unpaired": "{prompt: <column>, completion: <column>, label: <column>}",
    "prompt": "{prompt: <column>, answer: <column>}",
}
"""The mapping to write for rows in no known layout."""


def mismatch(
    name: str,
    columns: Sequence[str],
    task: TaskType | None,
    rows: Iterable[Row],
    layout: str | None = None,
) -> str:
    """What to say of a source whose columns cannot be read as `task`, in that `layout` if any."""
    shown = "".join(f"\n  row {i}: {_shown(row)}" for i, row in enumerate(rows, start=1))
    has = f"dataset {name!r} has the columns {', '.join(columns)}"
    if layout:
        asked = FORMATS[layout]
        why = f"makes {asked.task} rows, and {task} rows are needed"
        if _names(asked, columns, aliases=True) is None:
            why = f"needs {', '.join(asked.columns)}"
        return f"{has}, but `format: {layout}` {why}; remove `format`, or name another{shown}"
    found = reader(columns, None)
    known = f", which make {found.task} rows" if found else ", which are no layout we know"
    wanted = NEEDED[task] if task else " or ".join(NEEDED.values())
    return (
        f"{has}{known}, "
        f"but {task or 'conversation, preference or prompt'} rows are needed; say which column is "
        f"what with `columns: {wanted}`, or choose another dataset{shown}"
    )


def _shown(row: Row) -> str:
    """Every cell on one line, cut to 80 characters."""
    cells = ((name, printable(" ".join(_said(value).split()))) for name, value in row.items())
    return ", ".join(
        f"{name}={cell if len(cell) <= _CELL else cell[: _CELL - 1] + '…'}" for name, cell in cells
    )


def _said(value: Any) -> str:
    try:
        return str(value)
    except RecursionError:
        return "..."


_CELL = 80
