"""The data stage: sources in, one parquet file of canonical rows per split out.

    read -> percent -> max_samples -> canonical -> checked -> duplicates dropped      per source
         -> split by question -> weights -> shuffle -> train.parquet, heldout.parquet

What comes out depends on the spec and the sources only, to the byte.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligntune.config.data import TaskType
from aligntune.config.slices import DataSlice
from aligntune.data.load import Loaded, Source, load, open_source
from aligntune.data.mix import Indices, generator, sample, shares
from aligntune.data.pool import Pool
from aligntune.data.rows import Row, write_rows
from aligntune.errors import ConfigError, DataError

SAMPLES = 3
"""Rows that are kept among the facts."""
SAMPLE_LENGTH = 500
"""Characters of a message there."""


@dataclass(frozen=True)
class Prepared:
    metrics: dict[str, float]
    """rows_train, rows_heldout, rejected, duplicates."""
    facts: dict[str, Any]
    """task, digests by split, what became of each source's rows, and the first rows."""


@dataclass(frozen=True)
class _Split:
    train: Indices
    heldout: Indices
    """Numbers of rows in the pool, in the order in which they are written."""


def prepare(spec: DataSlice, fingerprints: Mapping[str, str], out: Path) -> Prepared:
    """Write train.parquet, heldout.parquet (with a `heldout_fraction`) and rejected.jsonl to `out`.

    `fingerprints` has what `sources.fingerprint` said of each, by `datasets[<index>]`.
    """
    sources = [
        open_source(index, dataset, fingerprints[f"datasets[{index}]"], spec.task)
        for index, dataset in enumerate(spec.datasets)
    ]
    task = _common_task(sources)
    with TemporaryFile(dir=out) as file:
        pool = Pool(file, spec.seed)
        loaded = [load(source, pool, spec.seed) for source in sources]
        split = _split(spec, pool, loaded)
        digests = _write(spec, out, task, pool, split)
        samples = [_shortened(json.loads(line)) for line in pool.lines(split.train[:SAMPLES])]
    rejected = [bad for source in loaded for bad in source.rejected]
    lines = (json.dumps(asdict(bad), ensure_ascii=False) + "\n" for bad in rejected)
    (out / "rejected.jsonl").write_text("".join(lines), encoding="utf-8")
    return Prepared(
        metrics={
            "rows_train": len(split.train),
            "rows_heldout": len(split.heldout),
            "rejected": len(rejected),
            "duplicates": sum(source.duplicates for source in loaded),
        },
        facts={
            "task": task,
            "digests": digests,
            "sources": [
                _described(source, split, fingerprints[f"datasets[{source.source.index}]"])
                for source in loaded
            ],
            "samples": samples,
        },
    )


def _common_task(sources: Sequence[Source]) -> TaskType:
    tasks = {source.reader.task: source for source in sources}
    if len(tasks) > 1:
        found = ", ".join(f"datasets[{s.index}] ({s.name!r}) {task}" for task, s in tasks.items())
        raise ConfigError(
            f"all datasets must give one type of rows, but: {found}; set `task_type` on each"
        )
    return sources[0].reader.task


def _split(spec: DataSlice, pool: Pool, loaded: Sequence[Loaded]) -> _Split:
    keys = np.frombuffer(pool.keys, dtype=np.uint64)
    held = _held_out(keys, spec.heldout_fraction)
    numbers = np.arange(len(pool))
    ranges = [slice(source.first, source.first + source.kept) for source in loaded]
    trainable = [numbers[inside][~held[inside]] for inside in ranges]
    train = np.concatenate(_weighted(spec, trainable))
    generator(spec.seed, "all", "shuffle").shuffle(train)
    # By key: a larger `max_heldout` then only adds rows, whatever else is in the data.
    heldout = numbers[held][np.argsort(keys[held], kind="stable")][: spec.max_heldout]
    return _Split(train, heldout)


def _held_out(keys: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """By row, whether its question is held out. Its key alone decides, except that there is at
    least one question on either side."""
    if not fraction:
        return np.zeros(len(keys), dtype=np.bool_)
    lowest, highest = keys.min(), keys.max()
    if lowest == highest:
        raise DataError(
            f"{len(keys)} rows ask only one question, so none can be held out; give more data, or "
            "`evaluation.datasets`"
        )
    held: NDArray[np.bool_] = (keys <= max(np.uint64(fraction * 2**64), lowest)) & (keys < highest)
    return held


def _weighted(spec: DataSlice, trainable: Sequence[Indices]) -> list[Indices]:
    """A seeded sample of each source's rows, as many as its weight allows."""
    counts = [len(numbers) for numbers in trainable]
    taken = shares(counts, [dataset.weight for dataset in spec.datasets])
    if taken != counts and not all(taken):
        poor = taken.index(0)
        raise DataError(
            f"the weights leave 0 of {counts[poor]} rows of dataset {spec.datasets[poor].name!r}, "
            f"as the sources have {counts} rows to train on; change `weight`, or use more data"
        )
    return [
        numbers[sample(len(numbers), wanted, generator(spec.seed, index, "weight"))]
        for index, (numbers, wanted) in enumerate(zip(trainable, taken, strict=True))
    ]


def _write(spec: DataSlice, out: Path, task: TaskType, pool: Pool, split: _Split) -> dict[str, str]:
    """Digest by split of the files written."""
    wanted = {"train": split.train}
    if spec.heldout_fraction:
        wanted["heldout"] = split.heldout
    return {
        name: write_rows(out / f"{name}.parquet", pool.lines(numbers), task, answers=pool.answers)
        for name, numbers in wanted.items()
    }


def _described(loaded: Loaded, split: _Split, fingerprint: str) -> dict[str, Any]:
    """What became of a source's rows; those kept but in neither split fell to `weight`, or were
    more than `max_heldout`."""
    source = loaded.source

    def inside(numbers: Indices) -> int:
        first = loaded.first
        return int(np.count_nonzero((numbers >= first) & (numbers < first + loaded.kept)))

    return {
        "name": source.name,
        "split": source.dataset.split,
        "fingerprint": fingerprint,
        "layout": source.reader.layout,
        "read": source.rows.count,
        "not_sampled": loaded.not_sampled,
        "rejected": len(loaded.rejected),
        "duplicates": loaded.duplicates,
        "kept": loaded.kept,
        "train": inside(split.train),
        "heldout": inside(split.heldout),
    }


def _shortened(row: Row) -> Row:
    return {
        name: value
        if isinstance(value, str)
        else [turn | {"content": turn["content"][:SAMPLE_LENGTH]} for turn in value]
        for name, value in row.items()
    }
