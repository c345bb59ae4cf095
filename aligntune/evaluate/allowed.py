"""Which rows a metric is for, and whether there are some: by the rows alone, without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aligntune.data.rows import ANSWER, read_rows
from aligntune.errors import DataError

PAIR = ("prompt", "chosen", "rejected")
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "exact_match": (ANSWER,),
    "nll": ("messages",),
    "perplexity": ("messages",),
    "preference_accuracy": PAIR,
    "preference_margin": PAIR,
}
"""Metric -> what a row needs to have to be measured; the others need nothing."""
PER_TOKEN = frozenset(("nll", "perplexity", "answer_tokens", "kl_to_base"))
"""Metrics that count tokens or are means over them: another tokenizer's are in another unit."""


def has(row: Mapping[str, Any], columns: Sequence[str]) -> bool:
    return all(row.get(column) not in (None, "", []) for column in columns)


def held_out(path: Path, count: int) -> list[dict[str, Any]]:
    """The first `count` rows to measure on. DataError where there are none."""
    if not path.is_file():
        raise DataError(
            f"there is no {path.name} in {path.parent}; set evaluation.datasets, or a larger "
            "evaluation.heldout_fraction"
        )
    rows = read_rows(path, count)
    if not rows:
        raise DataError(f"{path} has no rows to measure on; set evaluation.datasets")
    return rows


def refuse(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """DataError for a metric that was asked for and that no row allows."""
    for name in names:
        needed = COLUMNS.get(name, ())
        if not any(has(row, needed) for row in rows):
            raise DataError(
                f"metric {name!r} needs rows with {' and '.join(needed)}, and no held-out row has "
                f"them (columns: {', '.join(rows[0])}); remove it from evaluation.metrics and "
                "registry.gates, or set evaluation.datasets"
            )
