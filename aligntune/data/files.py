"""Rows of local files: json, jsonl, csv and parquet.

To add a kind: a function, and a line in READERS.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligntune.data.rows import BATCH, Row, Rows
from aligntune.errors import DataError

if TYPE_CHECKING:
    import pyarrow

_BOM = b"\xef\xbb\xbf"


def suffix(name: str) -> str | None:
    """The ending that says how a file is read, or None."""
    return next((ending for ending in READERS if name.lower().endswith(ending)), None)


def read_file(path: Path) -> Rows:
    """The rows of a file whose name has one of the READERS' endings."""
    with _readable(path):
        return READERS[suffix(path.name) or ""](path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what the libraries say of a broken file into a DataError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error, csv.Error) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read: {reason}; repair or replace the file") from error


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _json(path: Path) -> Rows:
    """One array of objects, or one object per line."""
    with _open(path) as file:
        start = file.read(1 << 16).removeprefix(_BOM).lstrip()[:1]
        if start != b"[":
            return _jsonl(path)
        file.seek(0)
        items = _decoded(file.read().removeprefix(_BOM), path, 1)
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise DataError(f"{path}: item {number} is {_kind(item)}; every item must be an object")
    return Rows.of(items)


def _jsonl(path: Path) -> Rows:
    columns: dict[str, None] = {}
    count = 0
    for number, line in _lines(path):
        row = _decoded(line, path, number)
        if not isinstance(row, dict):
            raise DataError(
                f"{path}:{number}: this line is {_kind(row)}; write one JSON object per line"
            )
        columns.update(dict.fromkeys(row))
        count += 1
    return Rows(tuple(columns), count, partial(_jsonl_at, path))


def _jsonl_at(path: Path, indices: Sequence[int]) -> Iterator[Row]:
    wanted = iter(indices)
    index = next(wanted, None)
    with _readable(path):
        for position, (number, line) in enumerate(_lines(path)):
            if index is None:
                return
            if position == index:
                yield _decoded(line, path, number)
                index = next(wanted, None)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, content) of every line that is not blank."""
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            content = line.removeprefix(_BOM) if number == 1 else line
            if content.strip():
                yield number, content


def _decoded(text: bytes, path: Path, line: int) -> Any:
    """The JSON value of `text`, which starts on that line of the file."""
    try:
        return json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        line += text[: error.start].count(b"\n")
        raise DataError(
            f"{path}:{line}: byte 0x{text[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        at = f"{path}:{line + error.lineno - 1}:{error.colno}"
        raise DataError(
            f"{at}: not valid JSON: {error.msg}; correct this line: a row is one object on one "
            "line, or an item of the one array that a .json file holds"
        ) from None
    except RecursionError:
        raise DataError(f"{path}:{line}: JSON nested too deep; flatten or remove it") from None


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _csv(path: Path) -> Rows:
    """Every cell is text: what looks like a number may be an answer such as `007`."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
        names = next(csv.reader(file), [])
    if len(set(names)) < len(names):
        raise DataError(f"{path}:1: two columns have the same name; rename one")
    table = arrow.read_csv(
        path,
        parse_options=arrow.ParseOptions(newlines_in_values=True),
        convert_options=arrow.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    return Rows(tuple(table.column_names), table.num_rows, partial(_table_at, table))


def _table_at(table: "pyarrow.Table", indices: Sequence[int]) -> Iterator[Row]:
    return _chosen(table.to_batches(max_chunksize=BATCH), indices)


def _parquet(path: Path) -> Rows:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return Rows(
            tuple(file.schema_arrow.names), file.metadata.num_rows, partial(_parquet_at, path)
        )


def _parquet_at(path: Path, indices: Sequence[int]) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with _readable(path), pq.ParquetFile(path) as file:
        yield from _chosen(file.iter_batches(BATCH), indices)


def _chosen(batches: Any, indices: Sequence[int]) -> Iterator[Row]:
    """The rows with these ascending indices, counted over all batches."""
    import numpy as np
    import pyarrow as pa

    wanted = np.asarray(indices, dtype=np.int64)
    start = 0
    for batch in batches:
        low, high = np.searchsorted(wanted, (start, start + batch.num_rows))
        if high > low:
            yield from batch.take(pa.array(wanted[low:high] - start)).to_pylist()
        start += batch.num_rows


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".json": _json,
    ".json.gz": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
