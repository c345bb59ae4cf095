"""One evaluation's directory, as written, and as the baseline of a later one.

predictions.parquet   one line per row: `row`, `prompt`, `reference`, `completion`, `finished`,
                      `tokens`, and a column per metric; null is "not generated" or "not scored"
evaluation.json       what was measured how, every interval and every comparison
"""

import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aligntune.artifacts import write_atomic
from aligntune.errors import DataError
from aligntune.evaluate.allowed import PER_TOKEN
from aligntune.evaluate.generate import Answer
from aligntune.evaluate.stats import (
    Difference,
    Interval,
    mean_by_prompt,
    mean_interval,
    paired_difference,
)
from aligntune.evaluate.types import Metric, Row, prompt_of

LOG = logging.getLogger(__name__)
PREDICTIONS = "predictions.parquet"
EVALUATION = "evaluation.json"

Column = Sequence[float | None]
"""One metric's score per row."""


@dataclass(frozen=True)
class Resampling:
    """How intervals are made."""

    confidence: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class Measured:
    """One metric of one model."""

    interval: Interval
    unscored: int
    """Rows that the metric is for but that got no score: too long, or nothing to judge by."""
    against: Mapping[str, Difference]
    """By baseline; without those that did not measure it."""


def measure(
    name: str,
    metric: Metric,
    column: Column,
    rows: int,
    units: Sequence[int],
    baselines: Mapping[str, Mapping[str, Column]],
    how: Resampling,
) -> Measured:
    """`column` summarised, and compared with each baseline's on the rows that both scored.

    `rows` is how many rows allow the metric, `units` the prompt of each row of the column.
    """
    if all(score is None for score in column):
        raise DataError(f"{name}: none of the {rows} rows {metric.unscored}; {metric.remedy}")
    scored = sum(score is not None for score in column)
    interval = mean_interval(by_prompt(units, column)[0], **asdict(how))
    if metric.geometric:
        return Measured(_exponential(interval), rows - scored, {})
    against = {
        label: paired_difference(
            *by_prompt(units, column, columns[name]),
            **asdict(how),
            higher_is_better=metric.higher_is_better,
        )
        for label, columns in baselines.items()
        if name in columns
    }
    return Measured(interval, rows - scored, against)


def units_of(rows: Sequence[Row]) -> list[int]:
    """The number of each row's prompt: rows that ask the same are one unit of every statistic."""
    known: dict[str, int] = {}
    asked = (json.dumps([prompt_of(row), row.get("tools")], sort_keys=True) for row in rows)
    return [known.setdefault(prompt, len(known)) for prompt in asked]


def by_prompt(units: Sequence[int], *columns: Column) -> tuple[NDArray[np.float64], ...]:
    """Each column's mean per prompt, over the rows that all of the columns score.

    Several samples or pairs of one prompt are not independent, so they are one unit.
    """
    kept = [
        (unit, scores)
        for unit, *scores in zip(units, *columns, strict=True)
        if all(score is not None for score in scores)
    ]
    prompts = np.array([unit for unit, _ in kept], dtype=np.int64)
    return tuple(
        mean_by_prompt(np.array([scores[at] for _, scores in kept], dtype=np.float64), prompts)
        for at in range(len(columns))
    )


def _exponential(interval: Interval) -> Interval:
    """The same for e to the power of what was measured; the standard error by the delta method."""
    mean, low, high = (exp(min(x, 700)) for x in (interval.mean, interval.low, interval.high))
    error = min(interval.standard_error * mean, sys.float_info.max)
    return replace(interval, mean=mean, low=low, high=high, standard_error=error)


def read_baseline(
    label: str, folder: Path, conditions: Mapping[str, Any], names: Iterable[str], tokens: str
) -> dict[str, Column]:
    """Those of the metrics `names` that an earlier evaluation has -> its scores; where its model
    has other `tokens`, without those that are per token.

    Raises:
        DataError: it is not one, or was made on other rows or under other conditions than these.
    """
    try:
        document = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
        there, other_tokens = document["conditions"], document["tokens"] != tokens
        table = pq.read_table(folder / PREDICTIONS)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"baseline {label!r}: {folder} holds no readable evaluation ({error}); evaluate that "
            "model again"
        ) from error
    differs = [
        f"{name} {there.get(name)!r} there, {value!r} here"
        for name, value in conditions.items()
        if there.get(name) != value
    ]
    if differs:
        raise DataError(
            f"baseline {label!r} in {folder} cannot be compared: {'; '.join(differs)}; evaluate "
            "that model again on these rows"
        )
    found = {name: table[name].to_pylist() for name in names if name in table.column_names}
    if other_tokens and (apart := PER_TOKEN & found.keys()):
        LOG.warning(
            "not compared with %s, which has other tokens: %s", label, ", ".join(sorted(apart))
        )
        found = {name: column for name, column in found.items() if name not in apart}
    return found


def write(
    out: Path,
    rows: Sequence[Row],
    answers: Sequence[Answer | None],
    columns: Mapping[str, Column],
    document: Mapping[str, Any],
) -> None:
    """The two files above."""
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    fields: dict[str, pa.Array] = {
        "row": pa.array(range(len(rows)), pa.int64()),
        "prompt": pa.array([prompt_of(row) for row in rows], pa.list_(message)),
        "reference": pa.array([_reference(row) for row in rows], pa.string()),
        "completion": pa.array([a.text if a else None for a in answers], pa.string()),
        "finished": pa.array([a.finished if a else None for a in answers], pa.bool_()),
        "tokens": pa.array([a.tokens if a else None for a in answers], pa.int64()),
    }
    scores = {name: pa.array(column, pa.float64()) for name, column in columns.items()}
    pq.write_table(pa.table(fields | scores), out / PREDICTIONS, compression="zstd")
    write_atomic(out / EVALUATION, json.dumps(document, indent=2, allow_nan=False) + "\n")


def _reference(row: Row) -> str | None:
    """What the answer is to be held against: `answer`, or the answer that the data gives."""
    if row.get("answer"):
        return str(row["answer"])
    said = row.get("messages") or row.get("chosen")
    return str(said[-1]["content"]) if said else None
