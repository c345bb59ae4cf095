"""A source: how its rows are read, and which of them are used."""

from collections.abc import Mapping
from dataclasses import dataclass

from aligntune.config.data import Dataset, TaskType
from aligntune.config.slices import ROWS_SEED
from aligntune.data import sources
from aligntune.data.formats import Reader, mismatch, reader
from aligntune.data.mix import Indices, generator, sample
from aligntune.data.rows import Rows, Unreadable
from aligntune.data.urls import public
from aligntune.errors import DataError

SHOWN = 3
"""Rows that a message about columns quotes."""


@dataclass(frozen=True)
class Source:
    """A source whose layout is known, before its rows are read."""

    index: int
    """Its place in the config."""
    dataset: Dataset
    fingerprint: str
    rows: Rows
    reader: Reader
    heldout: bool
    """Whether all of it is held out: it is another source's `eval_split`."""

    @property
    def name(self) -> str:
        """As the config has it, without a password or a signature in an address."""
        return public(self.dataset.name)


def open_sources(
    datasets: tuple[Dataset, ...], fingerprints: Mapping[str, str], task: TaskType | None
) -> list[Source]:
    """Every source with the reader that makes `task` of its rows; held-out splits come first, so
    that of two equal rows the held-out one stays.

    Raises:
        ConfigError: a source cannot be what its settings say.
        DataError: its columns cannot be read as `task`.
    """
    held, own = [], []
    for index, dataset in enumerate(datasets):
        fingerprint = fingerprints[f"datasets[{index}]"]
        own.append(_open(index, dataset, fingerprint, task, heldout=False))
        if split := sources.heldout(dataset):
            held.append(_open(index, split, fingerprint, task, heldout=True))
    return [*held, *own]


def _open(
    index: int,
    dataset: Dataset,
    fingerprint: str,
    task: TaskType | None,
    *,
    heldout: bool,
) -> Source:
    rows = sources.read(dataset, fingerprint)
    wanted = task or dataset.task_type
    found = reader(rows.columns, wanted, dataset.task_type, dataset.format)
    if not rows.columns:
        first = next(rows.at([0]))
        reason = first.reason if isinstance(first, Unreadable) else "it has no columns"
        raise DataError(
            f"dataset {public(dataset.name)!r}: no row can be read, the first ({rows.place(0)}) "
            f"because: {reason}; correct the file"
        )
    if found is None:
        some = rows.at(range(min(SHOWN, rows.count)))
        shown = [row for row in some if not isinstance(row, Unreadable)]
        raise DataError(mismatch(public(dataset.name), rows.columns, wanted, shown, dataset.format))
    return Source(index, dataset, fingerprint, rows, found, heldout)


def chosen(source: Source) -> Indices:
    """Indices of the rows to use: `percent`, and of these `max_samples`, both by ROWS_SEED."""
    dataset, count = source.dataset, source.rows.count
    share = round(count * dataset.percent / 100)
    found = sample(count, share, generator(ROWS_SEED, source.index, "percent"))
    if dataset.max_samples is None:
        return found
    random = generator(ROWS_SEED, source.index, "max_samples")
    return found[sample(len(found), dataset.max_samples, random)]
