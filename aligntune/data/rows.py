"""Rows: a source's own, before they are read, and the canonical ones, on disk."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligntune.config.data import TaskType

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]
Message = dict[str, str]
"""{"role", "content"}."""

COLUMNS: dict[TaskType, tuple[str, ...]] = {
    "conversation": ("messages",),
    "preference": ("prompt", "chosen", "rejected"),
    "prompt": ("prompt",),
}
"""The columns of each type of canonical row; every one holds a list of messages."""
ANSWER = "answer"
"""The reference answer, a string that any canonical row may have."""
BATCH = 4096
"""Rows in memory at a time, and rows per row group on disk."""


@dataclass(frozen=True)
class Rows:
    """A source's rows, decoded only when asked for."""

    columns: tuple[str, ...]
    """Every column that some row has."""
    count: int
    at: Callable[[Sequence[int]], Iterator[Row]]
    """The rows with these indices, which must ascend."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Rows":
        columns = tuple(dict.fromkeys(name for row in rows for name in row))
        return cls(columns, len(rows), lambda indices: (rows[i] for i in indices))


def encode(row: Row) -> bytes:
    """A canonical row as the JSON line that its identity and every digest are made of."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def prompt_of(row: Row) -> list[Message]:
    """What the model is given before it answers: all turns but the last, or the pair's prompt."""
    messages: list[Message] = row["messages"][:-1] if "messages" in row else row["prompt"]
    return messages


def question_of(row: Row) -> str:
    """The first thing the user says, which decides on what side of the held-out split a row is.

    Not the whole prompt: training on a conversation is training on its earlier turns too, and the
    same question below another system turn is the same question.
    """
    turns: list[Message] = row.get("messages") or row["prompt"]
    return next(turn["content"] for turn in turns if turn["role"] == "user")


def write_rows(path: Path, lines: Iterable[bytes], task: TaskType, *, answers: bool) -> str:
    """Write encoded rows as parquet; the sha256 over all of them, one per line, in order.

    The file has an `answer` column only with `answers`.
    """
    import pyarrow.parquet as pq

    digest = hashlib.sha256()
    schema = _schema(task, answers)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batched(lines, BATCH):
            for line in batch:
                digest.update(line + b"\n")
            writer.write_table(_table([json.loads(line) for line in batch], schema))
    return digest.hexdigest()


def read_rows(path: Path) -> list[Row]:
    """The canonical rows in a parquet file; `answer` only on those that have one."""
    import pyarrow.parquet as pq

    rows: list[Row] = pq.read_table(path).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last with what is left."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _schema(task: TaskType, answers: bool) -> "pyarrow.Schema":
    import pyarrow as pa

    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    columns = [(name, turns) for name in COLUMNS[task]]
    return pa.schema([*columns, (ANSWER, pa.string())] if answers else columns)


def _table(rows: list[Row], schema: "pyarrow.Schema") -> "pyarrow.Table":
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema)
