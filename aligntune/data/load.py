"""One source: open it, choose its rows, make them canonical, keep those that are right."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from aligntune.config.data import Dataset, TaskType
from aligntune.data.formats import Reader, mismatch, reader
from aligntune.data.mix import Indices, generator, sample
from aligntune.data.pool import Pool
from aligntune.data.rows import BATCH, Row, Rows, batched
from aligntune.data.schema import faults
from aligntune.data.sources import read
from aligntune.errors import DataError

LIMIT = 0.01
"""Share of a source's rows that may be unusable."""
SHOWN = 3
"""Rows that a message quotes."""


@dataclass(frozen=True)
class Source:
    """A source whose layout is known, before its rows are read."""

    index: int
    """Its place in the config."""
    dataset: Dataset
    rows: Rows
    reader: Reader

    @property
    def name(self) -> str:
        return self.dataset.name


@dataclass(frozen=True)
class Rejected:
    source: str
    row: int
    """Counted from 1."""
    reason: str


@dataclass(frozen=True)
class Loaded:
    """What became of a source's rows: read = not_sampled + rejected + duplicates + kept."""

    source: Source
    first: int
    """Number of its first row in the pool; the others follow."""
    kept: int
    not_sampled: int
    duplicates: int
    rejected: tuple[Rejected, ...]

    @property
    def story(self) -> str:
        """How many rows each step dropped."""
        return (
            f"{self.source.rows.count} read, {self.not_sampled} dropped by `percent` and "
            f"`max_samples`, {len(self.rejected)} unusable, {self.duplicates} exact duplicates, "
            f"{self.kept} left"
        )


def open_source(index: int, dataset: Dataset, fingerprint: str, task: TaskType | None) -> Source:
    """The source with the reader that makes `task` of its rows."""
    rows = read(dataset, fingerprint)
    wanted = task or dataset.task_type
    found = reader(rows.columns, wanted, dataset.task_type)
    if found is None:
        shown = rows.at(range(min(SHOWN, rows.count)))
        raise DataError(mismatch(dataset.name, rows.columns, wanted, shown))
    return Source(index, dataset, rows, found)


def load(source: Source, pool: Pool, seed: int) -> Loaded:
    """Add the source's usable rows to the pool, without exact duplicates.

    Raises DataError if more than LIMIT of its rows are unusable, or none is left.
    """
    chosen = _chosen(source, seed)
    limit = _limit(len(chosen), source.rows.count)
    first, duplicates = len(pool), 0
    rejected: list[Rejected] = []
    for batch in batched(_canonical(source, chosen), BATCH):
        good, bad = _checked(source, batch)
        duplicates += sum(not pool.add(row) for row in good)
        rejected += bad
        if len(rejected) > limit:
            raise DataError(_too_many(source, rejected, len(chosen)))
    loaded = Loaded(
        source=source,
        first=first,
        kept=len(pool) - first,
        not_sampled=source.rows.count - len(chosen),
        duplicates=duplicates,
        rejected=tuple(rejected),
    )
    if not loaded.kept:
        raise DataError(f"nothing is left of dataset {source.name!r}: {loaded.story}")
    return loaded


def _chosen(source: Source, seed: int) -> Indices:
    """Indices of the rows to read: `percent`, and of these `max_samples`."""
    dataset, count = source.dataset, source.rows.count
    share = round(count * dataset.percent / 100)
    chosen = sample(count, share, generator(seed, source.index, "percent"))
    if dataset.max_samples is None:
        return chosen
    random = generator(seed, source.index, "max_samples")
    return chosen[sample(len(chosen), dataset.max_samples, random)]


def _limit(chosen: int, count: int) -> int:
    """How many of the chosen rows may be unusable.

    A small sample can hold more of them than its source does, so it is allowed three standard
    errors more.
    """
    slack = 3 * math.sqrt(chosen * LIMIT * (1 - LIMIT)) if chosen < count else 0
    return int(chosen * LIMIT + slack)


def _canonical(source: Source, chosen: Indices) -> Iterator[tuple[int, Row | str]]:
    """(row number, canonical row, or why there is none)."""
    for index, row in zip(chosen, source.rows.at(chosen.tolist()), strict=True):
        try:
            yield int(index) + 1, source.reader(row)
        except DataError as error:
            yield int(index) + 1, str(error)


def _checked(
    source: Source, batch: list[tuple[int, Row | str]]
) -> tuple[list[Row], list[Rejected]]:
    """The rows of a batch that are right, and those that are not, in order."""
    made = [(number, row) for number, row in batch if not isinstance(row, str)]
    wrong = faults([row for _, row in made], source.reader.task)
    reasons = {number: row for number, row in batch if isinstance(row, str)}
    reasons |= {made[position][0]: reason for position, reason in wrong.items()}
    good = [row for number, row in made if number not in reasons]
    return good, [Rejected(source.name, number, reasons[number]) for number in sorted(reasons)]


def _too_many(source: Source, rejected: list[Rejected], chosen: int) -> str:
    shown = "".join(f"\n  row {bad.row}: {bad.reason}" for bad in islice(rejected, 5))
    return (
        f"dataset {source.name!r}: at least {len(rejected)} of {chosen} rows cannot be used as "
        f"{source.reader.task} rows, and only {LIMIT:.0%} may be left out; correct them, or say "
        f"with `columns` what is what (they were read as {source.reader.layout}){shown}"
    )
