"""What a reward model learns: pairs with margins, or sequences with scores."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from aligntune.config.slices import TrainSlice
from aligntune.data.rows import EXTRA, RATED
from aligntune.errors import DataError

SCORES = ("score", "rating")
"""Columns that say how good a row's answer is."""
MARGIN = "margin"

Extra = Mapping[str, Any]


def extras(path: Path) -> list[Extra]:
    """By row, the columns that its layout does not use."""
    if EXTRA not in pq.read_schema(path).names:
        return [{}] * pq.read_metadata(path).num_rows
    return [json.loads(text or "{}") for text in pq.read_table(path)[EXTRA].to_pylist()]


def to_score(others: Sequence[Extra], made: pa.Table, spec: TrainSlice) -> Dataset:
    """{chosen_ids, rejected_ids, margin?} or, for a regression, {input_ids, score}: the last
    `max_length` tokens of each sequence, prompt and answer together.

    Raises:
        DataError: a row has no score to learn.
    """
    rows = made.column(0).to_pylist()
    longest = spec.train.max_length or 0
    if spec.objective == "regression":
        last = [_end(row[-1]["ids"], longest) for row in rows]
        return Dataset.from_dict({"input_ids": last, "score": scores(others)})
    columns: dict[str, Any] = {
        "chosen_ids": [_end(one["ids"], longest) for one, _ in rows],
        "rejected_ids": [_end(other["ids"], longest) for _, other in rows],
    }
    asked = margins(others, spec.train.margin_scale or 0.0)
    return Dataset.from_dict(columns | ({MARGIN: asked} if any(asked) else {}))


def scores(others: Sequence[Extra]) -> list[float]:
    """The score of each row. DataError where there is none."""
    found = []
    for index, other in enumerate(others):
        values = [other[name] for name in SCORES if name in other]
        number = _number(values[0]) if values else None
        if number is None:
            raise DataError(
                f"row {index} of the reward model's data has no number in `score`, but "
                f"{', '.join(sorted(other)) or 'no other columns'}; say which column it is with "
                "`columns: {score: <column>}`, or learn from pairs: `objective: bradley_terry`"
            )
        found.append(number)
    return found


def margins(others: Sequence[Extra], scale: float) -> list[float]:
    """By how much the chosen answer of each pair has to win: `scale` times its `margin`, or times
    the difference of its ratings as a share of the largest; 0 where a row has neither."""
    given = [_number(other.get(MARGIN)) for other in others]
    rated = [[_number(other.get(name)) for name in RATED] for other in others]
    apart = [0.0 if a is None or b is None else max(a - b, 0.0) for a, b in rated]
    largest = max(apart, default=0.0) or 1.0
    return [
        scale * (difference / largest if margin is None else margin)
        for margin, difference in zip(given, apart, strict=True)
    ]


def _number(value: Any) -> float | None:
    try:
        number = None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number is not None and isfinite(number) else None


def _end(ids: list[int], longest: int) -> list[int]:
    return ids[-longest:] if longest else ids
