"""What became of every row: counts per source, and a line in rejected.jsonl for each dropped."""

import json
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import IO, Any

from aligntune.data.load import Source
from aligntune.data.report import Cause

MAX_ROW = 20_000
"""Characters of a rejected row that are kept."""


@dataclass
class Account:
    """Of one source."""

    source: Source
    sampled: int
    """Rows that `percent` and `max_samples` chose."""
    first: int
    """Number of its first row in the pool; the others follow."""
    kept: int = 0
    """How many are in the pool."""
    truncated: int = 0
    dropped: Counter[Cause] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Why rows are invalid."""
    examples: dict[str, str] = field(default_factory=dict)
    """Reason -> where the first of them is."""
    lengths: "array[int]" = field(default_factory=lambda: array("I"))
    """Tokens of the rows in the pool."""

    @property
    def not_sampled(self) -> int:
        return self.source.rows.count - self.sampled

    @property
    def story(self) -> str:
        """How many rows each step dropped."""
        words: dict[Cause, str] = {
            "invalid": "invalid",
            "duplicates": "duplicates",
            "near_duplicates": "near duplicates",
            "too_long": "too long",
            "contaminated": "in an evaluation set",
        }
        steps = [f"{self.dropped[cause]} {words[cause]}" for cause in words if self.dropped[cause]]
        if self.not_sampled:
            steps.insert(0, f"{self.not_sampled} left out by `percent` and `max_samples`")
        left = self.kept - self.dropped["contaminated"]
        return ", ".join([f"{self.source.rows.count} read", *steps, f"{left} left"])


class Ledger:
    """Writes rejected.jsonl as rows are dropped: where each was, why, and what it was."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.path = file.name

    def drop(
        self, account: Account, index: int, cause: Cause, reason: str, row: Any = None
    ) -> None:
        """Count it and write it down; `row` as it is in the source if it is invalid, else as it was
        read."""
        source = account.source
        account.dropped[cause] += 1
        place = source.rows.place(index)
        if cause == "invalid":
            account.reasons[reason] += 1
            account.examples.setdefault(reason, place)
        record = {
            "source": source.name,
            "row": index + 1,
            "place": place,
            "cause": cause,
            "reason": reason,
        }
        if row is not None:
            record["content"] = _printable(row)
        self._file.write(json.dumps(record, ensure_ascii=True) + "\n")


def _printable(row: Any) -> Any:
    try:
        text = json.dumps(row, default=str)
    except RecursionError:
        return "nested too deep to be shown"
    return row if len(text) <= MAX_ROW and _plain(row) else text[:MAX_ROW]


def _plain(row: Any) -> bool:
    try:
        json.dumps(row)
    except TypeError:
        return False
    return True
