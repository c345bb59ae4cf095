"""From counts and rows to a report."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from aligntune.config.data import TaskType
from aligntune.config.slices import DataSlice
from aligntune.data.intake import Intake
from aligntune.data.languages import languages
from aligntune.data.ledger import Account
from aligntune.data.mix import Indices, generator, sample
from aligntune.data.pool import Pool
from aligntune.data.report import CAUSES, DataReport, SourceReport, histogram
from aligntune.data.rows import TOOLS, Message, Row, decode, text_of
from aligntune.data.split import rule

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLES = 10
"""Rows of a source that are shown."""
SAMPLE_LENGTH = 2000
"""Characters of one."""
LOOKED_AT = 1000
"""Rows of a source whose languages and labels are counted."""
REASONS = 10
UNREAD = 50
"""Columns that are named."""


def describe(
    spec: DataSlice,
    tokenizer: "PreTrainedTokenizerBase | None",
    task: TaskType,
    intake: Intake,
    pool: Pool,
    splits: Mapping[str, Indices],
    digests: Mapping[str, str],
) -> DataReport:
    """Counts, digests, and what a seeded sample of each source looks like."""
    sources = [
        _source(spec, tokenizer, number, account, pool, splits)
        for number, account in enumerate(intake.accounts)
    ]
    taken = [found.train for found in sources if found.kind == "train"]
    return DataReport(
        task=task,
        rows={name: len(numbers) for name, numbers in splits.items()},
        digests=dict(digests),
        rule=rule(spec, intake.accounts, taken),
        max_length=spec.max_length,
        sources=tuple(sources),
    )


def _source(
    spec: DataSlice,
    tokenizer: "PreTrainedTokenizerBase | None",
    number: int,
    account: Account,
    pool: Pool,
    splits: Mapping[str, Indices],
) -> SourceReport:
    source = account.source
    some = account.first + sample(account.kept, LOOKED_AT, generator(spec.seed, number, "report"))
    rows = [decode(line) for line in pool.lines(some.tolist())]
    shown = rows[:: max(len(rows) // SAMPLES, 1)][:SAMPLES]
    return SourceReport(
        name=source.name,
        subset=source.dataset.subset,
        split=source.dataset.split,
        kind="heldout" if source.heldout else "train",
        fingerprint=source.fingerprint,
        format=source.reader.layout,
        task=source.reader.task,
        read=source.rows.count,
        not_sampled=account.not_sampled,
        dropped={cause: account.dropped[cause] for cause in CAUSES},
        truncated=account.truncated,
        kept=account.kept - account.dropped["contaminated"],
        train=_inside(account, splits.get("train")),
        heldout=_inside(account, splits.get("heldout")),
        lengths=histogram(account.lengths) if tokenizer else None,
        looked_at=len(rows),
        labels=balance(rows),
        languages=languages([text_of(row) for row in rows]),
        samples=tuple(rendered(row, tokenizer)[:SAMPLE_LENGTH] for row in shown),
        reasons=tuple(
            (reason, count, account.examples[reason])
            for reason, count in account.reasons.most_common(REASONS)
        ),
        unread=source.reader.unread(source.rows.columns)[:UNREAD],
    )


def _inside(account: Account, numbers: Indices | None) -> int:
    if numbers is None:
        return 0
    first = account.first
    return int(np.count_nonzero((numbers >= first) & (numbers < first + account.kept)))


def balance(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows have the good label, the longer answer chosen, or a reference answer."""
    if not rows or "messages" in rows[0]:
        return {}
    if "label" in rows[0]:
        return _halves("desirable", "undesirable", [row["label"] for row in rows])
    if "chosen" in rows[0]:
        longer = [_size(row["chosen"]) > _size(row["rejected"]) for row in rows]
        return _halves("chosen is the longer", "chosen is not the longer", longer)
    return _halves("with an answer", "without an answer", ["answer" in row for row in rows])


def _halves(yes: str, no: str, found: Sequence[bool]) -> dict[str, int]:
    return {yes: sum(found), no: len(found) - sum(found)}


def _size(turns: Sequence[Message]) -> int:
    return sum(len(turn["content"]) for turn in turns)


def rendered(row: Row, tokenizer: "PreTrainedTokenizerBase | None") -> str:
    """The row as the model will see it, each answer by itself; without a tokenizer turn by turn."""
    parts: dict[str, list[Message]] = {
        name: [*row["prompt"], *row[name]]
        for name in ("chosen", "rejected", "completion")
        if name in row
    }
    parts = parts or {"": row.get("messages") or row["prompt"]}
    tools = row.get(TOOLS)
    return "\n".join(
        (f"[{name}]\n" if name else "") + _spoken(turns, tokenizer, tools)
        for name, turns in parts.items()
    )


def _spoken(
    turns: Sequence[Message], tokenizer: "PreTrainedTokenizerBase | None", tools: str | None
) -> str:
    if tokenizer is None:
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
    from aligntune.models.chat import is_text, render

    if is_text(turns):
        return turns[0]["content"]
    return render(tokenizer, turns, to_answer=turns[-1]["role"] != "assistant", tools=tools)
