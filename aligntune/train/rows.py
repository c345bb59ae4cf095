"""Training rows, out of the data stage's rows and tokens, in the form that TRL's trainers take."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset

from aligntune.config.algo import ONLINE
from aligntune.config.slices import TrainSlice
from aligntune.data import tokens
from aligntune.data.rows import ANSWER, EXTRA
from aligntune.errors import DataError
from aligntune.train.reward_rows import extras, to_score

ASKED = ("prompt", ANSWER, EXTRA)
"""What sampling and rewards need of a row."""


REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
"""TRL's names for the log-probabilities of a pair's answers under dpo's reference, in nats."""


def training_rows(
    data: Path, split: str, spec: TrainSlice, reference: Path | None = None
) -> Dataset:
    """The rows of a split as `spec.algo` learns from them, tokenised: not a row of text is
    tokenised again. Pairs have what `reference` says of them beside them.

    Raises:
        DataError: that is not of these rows.
    """
    made = tokens.read(data / f"{split}.tokens.parquet")
    if spec.algo == "sft":
        return imitation(made, last=not spec.train.completion_only_loss)
    if spec.algo in ONLINE:
        return asked(pq.read_table(data / f"{split}.parquet"), made)
    if spec.algo == "reward":
        return to_score(extras(data / f"{split}.parquet"), made, spec)
    return referred(pairs(made), reference / f"{split}.parquet") if reference else pairs(made)


def imitation(made: pa.Table, *, last: bool) -> Dataset:
    """{input_ids, completion_mask}, a row per answer.

    With `last` only the last answer of each conversation makes a row: where prompts are learned
    too, what is said before it would otherwise be learned several times.
    """

    def columns(batch: pa.RecordBatch) -> dict[str, Any]:
        rows = batch.column(0)
        sequences = rows.flatten()
        if last:
            ends = np.cumsum(pc.list_value_length(rows).to_numpy(zero_copy_only=False)) - 1
            sequences = sequences.take(pa.array(ends))
        ids, starts = (pc.struct_field(sequences, name) for name in ("ids", "start"))
        return {"input_ids": ids, "completion_mask": _from(ids, starts)}

    return _dataset(made, columns)


def pairs(made: pa.Table) -> Dataset:
    """{prompt_ids, chosen_ids, rejected_ids}."""

    def columns(batch: pa.RecordBatch) -> dict[str, Any]:
        rows = batch.column(0).to_pylist()
        return {
            "prompt_ids": [one["ids"][: one["start"]] for one, _ in rows],
            "chosen_ids": [one["ids"][one["start"] :] for one, _ in rows],
            "rejected_ids": [other["ids"][other["start"] :] for _, other in rows],
        }

    return _dataset(made, columns)


def referred(rows: Dataset, file: Path) -> Dataset:
    """Pairs, each with the log-probabilities that `file` has of it."""
    known = pq.read_table(file)
    if known.num_rows != rows.num_rows:
        raise DataError(
            f"{file} is of {known.num_rows} rows and not of these {rows.num_rows}; remove its "
            "folder and run the same command again, it is computed anew"
        )
    table = rows.data.table
    for name in REFERENCE:
        table = table.append_column(name, known[name])
    return Dataset(table)


LENGTH = "prompt_length"


def asked(rows: pa.Table, made: pa.Table) -> Dataset:
    """{prompt, answer?, extra?} and how many tokens the prompt has."""
    lengths = [row[0]["start"] for row in made.column(0).to_pylist()]
    kept = rows.select([name for name in ASKED if name in rows.column_names])
    return Dataset(kept.append_column(LENGTH, pa.array(lengths, pa.int32())))


def fitting(rows: Dataset, longest: int | None) -> Dataset:
    """The rows whose prompt has at most `longest` tokens: TRL samples from any prompt."""
    if longest is not None:
        rows = rows.select(np.flatnonzero(np.asarray(rows[LENGTH][:]) <= longest))
    return rows.remove_columns(LENGTH)


def _from(ids: pa.ListArray, starts: pa.Array) -> pa.ListArray:
    """For each sequence 0 before its answer, and 1 from there on."""
    lengths = pc.list_value_length(ids).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    mask = position >= np.repeat(starts.to_numpy(zero_copy_only=False), lengths)
    return pa.ListArray.from_arrays(offsets, mask.astype(np.int8))


def _dataset(made: pa.Table, columns: Callable[[pa.RecordBatch], dict[str, Any]]) -> Dataset:
    def tables() -> Iterator[pa.Table]:
        for batch in made.to_batches():
            yield pa.table(columns(batch))

    return Dataset(pa.concat_tables(tables()))
