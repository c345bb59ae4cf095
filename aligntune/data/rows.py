"""Rows: a source's own, before they are read, and the canonical ones, on disk."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligntune.config.data import TaskType

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]
Buffer = bytes | memoryview
Message = dict[str, str]
"""{"role", "content"}, and where there are some, PARTS."""

COLUMNS: dict[TaskType, tuple[str, ...]] = {
    "conversation": ("messages",),
    "preference": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion"),
    "prompt": ("prompt",),
}
"""The columns of each type of canonical row that hold a list of messages. An unpaired row also has
`label`, whether its completion is a good one."""
WEIGHT, UNLEARNED = "weight", "0"
"""A part of the answers in a conversation that are not to be imitated, and its only value."""
PARTS = ("tool_calls", "name", "reasoning_content", "thinking", WEIGHT)
"""Of messages: JSON of the tools called, who returned a result, thoughts before an answer."""
ANSWER = "answer"
"""The reference answer, a string that any canonical row may have."""
RATED = ("score_chosen", "score_rejected")
"""Columns that rate the answers of a pair, among those that no layout uses."""
TOOLS = "tools"
"""JSON of the tools that the assistant may call, on rows that have some."""
EXTRA = "extra"
"""JSON of the source's other columns, which rewards may ask for."""
BATCH = 4096
"""Rows in memory at a time, and rows per row group on disk."""


@dataclass(frozen=True)
class Unreadable:
    """Stands for a row that could not be decoded."""

    reason: str
    content: Any = None
    """What can be shown of it, as JSON has it."""


@dataclass(frozen=True)
class Rows:
    """A source's rows, decoded only when asked for."""

    columns: tuple[str, ...]
    """Every column that some row has."""
    count: int
    at: Callable[[Sequence[int]], Iterator[Row | Unreadable]]
    """The rows with these indices, which must ascend."""
    place: Callable[[int], str] = lambda index: f"row {index + 1}"
    """Where a person finds the row with this index."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Rows":
        columns = tuple(dict.fromkeys(name for row in rows for name in row))
        return cls(columns, len(rows), lambda indices: (rows[i] for i in indices))


def encode(row: Row) -> bytes:
    """A canonical row as the JSON line, with its end, that every digest is made of."""
    import orjson

    return orjson.dumps(row, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes) -> Row:
    """The canonical row that `encode` was given."""
    import orjson

    row: Row = orjson.loads(line)
    return row


def prompt_of(row: Row) -> list[Message]:
    """What the model is given before it answers: all turns but the last, or the pair's prompt."""
    messages: list[Message] = row["messages"][:-1] if "messages" in row else row["prompt"]
    return messages


def question_of(row: Row) -> str:
    """The first thing the user says, which decides on what side of the held-out split a row is;
    of plain text all of it.

    Not the whole prompt: training on a conversation is training on its earlier turns too, and the
    same question below another system turn is the same question.
    """
    turns: list[Message] = row.get("messages") or row["prompt"]
    for turn in turns:
        if turn["role"] == "user":
            return turn["content"]
    return text_of(row)


def text_of(row: Row) -> str:
    """Everything that is said in the row, a turn per line."""
    lists = (row[name] for name in ("messages", "prompt", "completion", "chosen") if name in row)
    return "\n".join(turn["content"] for turns in lists for turn in turns)


def columns_in(rows: Iterable[Row]) -> set[str]:
    """The columns that are not on every row, and the parts of messages that are not in every one,
    which some of the canonical rows have."""
    names: set[str] = set()
    for row in rows:
        names.update(row)
        for name in _TURNS & row.keys():
            names.update(*row[name])
    return names & _OPTIONAL


_TURNS = {name for columns in COLUMNS.values() for name in columns}
_OPTIONAL = {ANSWER, TOOLS, EXTRA, *PARTS}


def write_rows(path: Path, texts: Iterable[Buffer], task: TaskType, optional: set[str]) -> str:
    """Write encoded rows, many to a text, as parquet; the sha256 over all of them, in order.

    Of what `columns_in` knows the file has the columns that are `optional`. A text becomes a row
    group.
    """
    import pyarrow.parquet as pq

    digest = hashlib.sha256()
    schema = _schema(task, optional)
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as writer:
        for text in texts:
            digest.update(text)
            writer.write_table(_table(text, schema))
    return digest.hexdigest()


def read_rows(path: Path, count: int | None = None) -> list[Row]:
    """The (first `count`) canonical rows in a parquet file, each with the columns that it has
    itself."""
    return [_pruned(row) for row in head(path, count)]


def head(path: Path, count: int | None = None) -> list[Row]:
    """The (first `count`) rows of a parquet file; no more of it is read than they need.

    Not by `read_table`, which imports pandas to read any file: half a second.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(min(count, BATCH) if count else BATCH)
        rows = (row for batch in batches for row in batch.to_pylist())
        return list(islice(rows, count))


def _pruned(value: Any) -> Any:
    """Without what is None only because another row has it."""
    if isinstance(value, dict):
        return {name: _pruned(item) for name, item in value.items() if item is not None}
    return [_pruned(item) for item in value] if isinstance(value, list) else value


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last with what is left."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _schema(task: TaskType, optional: set[str]) -> "pyarrow.Schema":
    import pyarrow as pa

    parts = ["role", "content", *(name for name in PARTS if name in optional)]
    turns = pa.list_(pa.struct([(name, pa.string()) for name in parts]))
    columns = [(name, turns) for name in COLUMNS[task]]
    if task == "unpaired":
        columns.append(("label", pa.bool_()))
    own = [(name, pa.string()) for name in (ANSWER, TOOLS, EXTRA) if name in optional]
    return pa.schema([*columns, *own])


def _table(text: Buffer, schema: "pyarrow.Schema") -> "pyarrow.Table":
    import pyarrow as pa
    from pyarrow import json

    return json.read_json(
        pa.BufferReader(text),
        read_options=json.ReadOptions(use_threads=False, block_size=len(text) + 1),
        parse_options=json.ParseOptions(explicit_schema=schema),
    )
