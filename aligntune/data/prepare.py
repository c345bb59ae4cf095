"""The data stage: sources in, one parquet file of canonical rows per split out.

    read -> percent -> max_samples -> canonical -> checked -> tokens -> too long, duplicates,
    near duplicates dropped                                                       per source
         -> split by question -> decontaminated -> weights -> shuffle
         -> train.parquet, heldout.parquet, their tokens, rejected.jsonl, report.*

What comes out depends on the spec and the sources only, to the byte.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from aligntune.config.data import TaskType
from aligntune.config.slices import DataSlice
from aligntune.data import report, tokens
from aligntune.data.batch import Work, tokenizer_in, workers
from aligntune.data.clean import Overlap, require_minhash
from aligntune.data.describe import describe
from aligntune.data.intake import Intake, duplicates
from aligntune.data.ledger import Ledger
from aligntune.data.load import Source, chosen, open_sources
from aligntune.data.mix import Indices
from aligntune.data.pool import Pool
from aligntune.data.report import CAUSES, DataReport
from aligntune.data.rows import BATCH, batched, decode, read_rows, write_rows
from aligntune.data.split import Split, mixed, split
from aligntune.errors import ConfigError, DataError
from aligntune.heartbeat import Progress
from aligntune.uncollected import uncollected

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Prepared:
    metrics: dict[str, float]
    """rows_train, rows_heldout, and how many rows were dropped, by cause."""
    facts: dict[str, Any]
    """task, digests by split, and what became of each source's rows."""


@dataclass(frozen=True)
class Place:
    """Where the stage works, and with what besides its spec."""

    out: Path
    tokenizer: Path | None = None
    """Without one, rows are not tokenised."""
    evaluation: Path | None = None
    """Rows that nothing in the training rows may repeat."""
    progress: Progress = lambda done, total, shown: None


def prepare(spec: DataSlice, fingerprints: Mapping[str, str], place: Place) -> Prepared:
    """Write train.parquet, heldout.parquet (with something held out), `<split>.tokens.parquet`
    (with a tokenizer), rejected.jsonl and the report to `place.out`.

    `fingerprints` has what `sources.fingerprint` said of each, by `datasets[<index>]`.

    Raises:
        ConfigError: a source is not there, or not what its settings say.
        DataError: more rows are unusable than may be, or nothing is left.
    """
    if spec.cleaning.near_duplicates is not None:
        require_minhash()
    sources = open_sources(spec.datasets, fingerprints, spec.task)
    task = _common_task(sources)
    tick = _ticker(place, sum(len(chosen(source)) for source in sources))
    with ExitStack() as stack, uncollected():
        lines, packed = (stack.enter_context(TemporaryFile(dir=place.out)) for _ in range(2))
        pool = Pool(lines, packed)
        file = (place.out / "rejected.jsonl").open("w", encoding="utf-8")
        ledger = Ledger(stack.enter_context(file))
        intake = Intake(spec, pool, ledger, stack.enter_context(workers(spec.workers)))
        for source in sources:
            intake.take(source, _work(spec, place, source), tick)
        pool.flush()
        keys = np.frombuffer(pool.keys, dtype=np.uint64)
        parts = split(spec, keys, intake.accounts)
        trainable = _decontaminated(spec, place, pool, intake, ledger, parts)
        train = mixed(spec, intake.accounts, trainable)
        splits = {"train": train} | ({"heldout": parts.heldout} if len(parts.heldout) else {})
        digests = _write(place, pool, task, intake.optional, splits)
        tokenizer = place.tokenizer and tokenizer_in(place.tokenizer, spec.trust_remote_code)
        made = describe(spec, tokenizer, task, intake, pool, splits, digests)
    report.write(made, place.out)
    return _prepared(made)


def _common_task(sources: Sequence[Source]) -> TaskType:
    tasks = {source.reader.task: source for source in sources}
    if len(tasks) > 1:
        found = ", ".join(f"datasets[{s.index}] ({s.name!r}) {task}" for task, s in tasks.items())
        raise ConfigError(
            f"all datasets must give one type of rows, but: {found}; set `task_type` on each"
        )
    return sources[0].reader.task


def _ticker(place: Place, total: int) -> Tick:
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        place.progress(done, total, {})

    return tick


def _work(spec: DataSlice, place: Place, source: Source) -> Work:
    return Work(
        reader=source.reader,
        duplicates=duplicates(spec.cleaning, source.reader.task),
        similar=spec.cleaning.near_duplicates is not None,
        tokenizer=place.tokenizer,
        trust_remote_code=spec.trust_remote_code,
        max_length=spec.max_length,
        cut=spec.cut,
    )


def _decontaminated(
    spec: DataSlice, place: Place, pool: Pool, intake: Intake, ledger: Ledger, parts: Split
) -> Any:
    """By row, whether it may be trained on: not if an evaluation set has it or much of it."""
    trainable = parts.trainable.copy()
    for number, line in zip(parts.overlap, pool.lines(parts.overlap), strict=True):
        account, index = intake.origin(number)
        reason = "its question is in a held-out split"
        ledger.drop(account, index, "contaminated", reason, decode(line))
    evaluated = [decode(line) for line in pool.lines(parts.heldout)]
    if place.evaluation:
        evaluated += read_rows(place.evaluation)
    if spec.cleaning.decontaminate is None or not evaluated:
        return trainable
    overlap = Overlap(evaluated, spec.cleaning.decontaminate)
    for numbers in batched(np.flatnonzero(trainable), BATCH):
        rows = [decode(line) for line in pool.lines(numbers)]
        for number, row, found in zip(numbers, rows, overlap.contaminated(rows), strict=True):
            if found:
                account, index = intake.origin(number)
                reason = "shares text with an evaluation row"
                ledger.drop(account, index, "contaminated", reason, row)
                trainable[number] = False
    if not trainable.any():
        raise DataError(
            "every row shares text with an evaluation row, so none is left to train on; look at "
            f"{ledger.path}, use other evaluation data, or set cleaning.decontaminate to null"
        )
    return trainable


def _write(
    place: Place, pool: Pool, task: TaskType, optional: set[str], splits: Mapping[str, Indices]
) -> dict[str, str]:
    """Digest by split of the rows written."""
    digests = {}
    for name, numbers in splits.items():
        order = numbers.tolist()
        digests[name] = write_rows(place.out / f"{name}.parquet", pool.texts(order), task, optional)
        if place.tokenizer:
            tokens.write(place.out / f"{name}.tokens.parquet", pool.tokens(order))
    return digests


def _prepared(made: DataReport) -> Prepared:
    metrics = {f"rows_{split}": float(made.rows.get(split, 0)) for split in ("train", "heldout")}
    for cause in CAUSES:
        metrics[cause] = float(sum(source.dropped[cause] for source in made.sources))
    metrics["truncated"] = float(sum(source.truncated for source in made.sources))
    sources = [report.facts(source) for source in made.sources]
    return Prepared(metrics, {"task": made.task, "digests": dict(made.digests), "sources": sources})
