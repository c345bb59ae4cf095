"""Rows of local files: json, jsonl, csv, tsv, parquet and arrow, text also compressed.

To add a kind: a function, and a line in READERS.
"""

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from aligntune.data.delimited import columns_of, read_csv, read_tsv, refuse_same
from aligntune.data.rows import BATCH, Row, Rows, Unreadable
from aligntune.data.streams import BOM, opened, readable
from aligntune.errors import DataError

LOOKED_AT = 1000
"""Rows of a jsonl file whose keys are taken for its columns."""
SHOWN = 20_000
"""Bytes of a line that cannot be decoded that are kept."""
READ = 4 << 20
"""Bytes of lines in memory at a time."""
_LONG = b"0" * 19
"""Digits of a number that may not fit into 64 bits, after _DIGITS."""
_DIGITS = bytes.maketrans(b"123456789", b"000000000")


def suffix(name: str) -> str | None:
    """The ending that says how a file is read, or None."""
    return next((ending for ending in READERS if name.lower().endswith(ending)), None)


def read_files(paths: Mapping[str, Path]) -> Rows:
    """The rows of files with one of the READERS' endings, one file after the other.

    `paths` has them by what messages call them: their names, below their folders where there are
    several.
    """
    parts = [_called(name, path, read_file(path)) for name, path in paths.items()]
    if len(parts) == 1:
        return parts[0]
    _refuse_other_kinds(list(paths), parts)
    starts = [0, *accumulate(part.count for part in parts)]

    def at(indices: Sequence[int]) -> Iterator[Row | Unreadable]:
        for part, start, end in zip(parts, starts, starts[1:], strict=False):
            inside = indices[bisect_left(indices, start) : bisect_left(indices, end)]
            if len(inside):
                yield from part.at([index - start for index in inside])

    def place(index: int) -> str:
        number = bisect_right(starts, index) - 1
        return parts[number].place(index - starts[number])

    columns = dict.fromkeys(name for part in parts for name in part.columns)
    return Rows(tuple(columns), starts[-1], at, place)


def _called(name: str, path: Path, rows: Rows) -> Rows:
    folder = name.removesuffix(path.name)
    return replace(rows, place=lambda index: folder + rows.place(index))


def _refuse_other_kinds(names: Sequence[str], parts: Sequence[Rows]) -> None:
    """DataError for a file that shares no column with the first: it holds something else."""
    told = [(name, part.columns) for name, part in zip(names, parts, strict=True) if part.columns]
    for name, columns in told[1:]:
        first, known = told[0]
        if not set(columns) & set(known):
            raise DataError(
                f"{first} has the columns {', '.join(known)} but {name} has "
                f"{', '.join(columns)}; name the files of one kind with a glob"
            )


def read_file(path: Path) -> Rows:
    with readable(path):
        return READERS[suffix(path.name) or ""](path)


def header(path: Path) -> tuple[str, ...] | None:
    """The columns of a file by its beginning; None where that does not tell them, as of one JSON
    array, or is broken."""
    reader = READERS[suffix(path.name) or ""]
    try:
        with readable(path):
            if reader is _json:
                if _is_array(path):
                    return None
                reader = _jsonl
            if reader is _jsonl:
                _refuse_spread(path)
                return _keys(path)
            if reader in (read_csv, read_tsv):
                return columns_of(path, tabs=reader is read_tsv)
            return reader(path).columns
    except DataError:
        return None


def _json(path: Path) -> Rows:
    """One array of objects, or one object per line."""
    if not _is_array(path):
        return _jsonl(path)
    with opened(path) as file:
        text = file.read().removeprefix(BOM)
    try:
        items = json.loads(text.decode())
    except UnicodeDecodeError as error:
        line = 1 + text[: error.start].count(b"\n")
        raise DataError(f"{path}:{line}: {_not_utf8(error)}; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        at = f"{path}:{error.lineno}:{error.colno}"
        raise DataError(f"{at}: not valid JSON: {error.msg}; correct the file") from None
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deep; flatten it") from None
    rows = [item if isinstance(item, dict) else Unreadable(_kind(item), item) for item in items]
    columns = dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row)
    return Rows(
        tuple(columns), len(rows), lambda indices: (rows[i] for i in indices), _rows_of(path)
    )


def _is_array(path: Path) -> bool:
    with opened(path) as file:
        start: bytes = file.peek(1 << 16)  # type: ignore[attr-defined]
        return start.removeprefix(BOM).lstrip()[:1] == b"["


def _jsonl(path: Path) -> Rows:
    """The keys of the first rows are the columns, so that a large file is decoded only once."""
    _refuse_spread(path)
    columns = _keys(path)
    blank = array("Q")
    number = 0
    with opened(path) as file:
        while lines := file.readlines(READ):
            if any(map(bytes.isspace, lines)):
                blank.extend(at for at, line in enumerate(lines, number + 1) if line.isspace())
            number += len(lines)

    def place(index: int) -> str:
        # The blank line number `i` (from 0) has `blank[i] - 1 - i` rows above it.
        above = bisect_right(range(len(blank)), index, key=lambda i: blank[i] - 1 - i)
        return f"{path.name}:{index + 1 + above}"

    return Rows(columns, number - len(blank), partial(_jsonl_at, path), place)


def _refuse_spread(path: Path) -> None:
    """DataError for JSON that is spread over lines: an object of everything, or rows for people."""
    start = next(_blocks(path), None)
    if not start or not start[0].startswith(b"{") or isinstance(_decoded(start[0]), dict):
        return
    text = b"".join(start).decode(errors="replace")
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return
    if "\n" not in text[:end]:
        return
    if text[end:].strip():
        raise DataError(f"{path}: rows go over several lines; write each on one line")
    raise DataError(
        f"{path}: is one object with the keys {', '.join(list(value)[:10])}, and not rows; write "
        "an array of them, or one on each line"
    )


def _keys(path: Path) -> tuple[str, ...]:
    decoded = (_decoded(line) for block in _blocks(path) for line in block)
    rows = islice((row for row in decoded if isinstance(row, dict)), LOOKED_AT)
    return tuple(dict.fromkeys(name for row in rows for name in row))


def _jsonl_at(path: Path, indices: Sequence[int]) -> Iterator[Row | Unreadable]:
    start = done = 0
    with readable(path):
        for block in _blocks(path):
            if done == len(indices):
                return
            until = bisect_left(indices, start + len(block), done)
            lines = [block[index - start] for index in indices[done:until]]
            start, done = start + len(block), until
            yield from _rows(lines)


def _rows(lines: list[bytes]) -> list[Row | Unreadable]:
    """What is on each line; all at once where nothing is wrong with any."""
    import orjson

    if _LONG not in b"".join(lines).translate(_DIGITS):
        try:
            rows: list[Row | Unreadable] = list(map(orjson.loads, lines))
        except (orjson.JSONDecodeError, RecursionError):
            rows = []
        if rows and all(type(row) is dict for row in rows):
            return rows
    return [_shown(_decoded(line), line) for line in lines]


def _shown(row: Row | Unreadable, line: bytes) -> Row | Unreadable:
    if isinstance(row, Unreadable):
        return replace(row, content=line[:SHOWN].decode(errors="backslashreplace").strip())
    return row


def _blocks(path: Path) -> Iterator[list[bytes]]:
    """Every line that is not blank, some at a time."""
    with opened(path) as file:
        first = True
        while lines := file.readlines(READ):
            marked = first and lines[0].startswith(BOM)
            if any(map(bytes.isspace, lines)):
                lines = [line for line in lines if not line.isspace()]
            if marked:
                lines[0] = lines[0].removeprefix(BOM)
            first = False
            yield lines


def _decoded(line: bytes) -> Row | Unreadable:
    """The object on a line, or why there is none."""
    import orjson

    try:
        row = orjson.loads(line)
        if _LONG in line.translate(_DIGITS) and _rounded(row):
            row = json.loads(line)
    except orjson.JSONDecodeError:
        row = _leniently(line)
    except RecursionError:
        row = Unreadable("JSON nested too deep")
    return row if isinstance(row, dict | Unreadable) else Unreadable(_kind(row))


def _rounded(value: Any) -> bool:
    """Whether a number in it may be an integer beyond 64 bits, which orjson rounds."""
    if isinstance(value, float):
        return abs(value) >= 2**63
    if isinstance(value, dict):
        return any(map(_rounded, value.values()))
    return isinstance(value, list) and any(map(_rounded, value))


def _leniently(line: bytes) -> Any:
    """What only Python's own reader takes, NaN and lone surrogates, or says more of."""
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Unreadable(_not_utf8(error))
    except json.JSONDecodeError as error:
        return Unreadable(f"not valid JSON: {error.msg} (column {error.colno})")
    except RecursionError:
        return Unreadable("JSON nested too deep")


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"byte 0x{error.object[error.start]:02x} is not UTF-8"


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return f"{names.get(type(value), 'a number')} and not an object"


def _parquet(path: Path) -> Rows:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names, count = tuple(file.schema_arrow.names), file.metadata.num_rows
    refuse_same(str(path), names)
    return Rows(names, count, partial(_parquet_at, path), _rows_of(path))


def _parquet_at(path: Path, indices: Sequence[int]) -> Iterator[Row | Unreadable]:
    import pyarrow.parquet as pq

    with readable(path), pq.ParquetFile(path) as file:
        yield from _chosen(file.iter_batches(BATCH), indices)


def _arrow(path: Path) -> Rows:
    """IPC, as a file or as the stream that `datasets` writes."""
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        table = pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        table = pa.ipc.open_stream(source).read_all()

    refuse_same(str(path), table.column_names)

    def at(indices: Sequence[int]) -> Iterator[Row | Unreadable]:
        return _chosen(table.to_batches(max_chunksize=BATCH), indices)

    return Rows(tuple(table.column_names), table.num_rows, at, _rows_of(path))


def _chosen(batches: Any, indices: Sequence[int]) -> Iterator[Row | Unreadable]:
    """The rows with these ascending indices, counted over all batches."""
    import numpy as np
    import pyarrow as pa

    wanted = np.asarray(indices, dtype=np.int64)
    start = done = 0
    for batch in batches if len(wanted) else ():
        end = start + batch.num_rows
        until = int(np.searchsorted(wanted, end))
        if until > done:
            yield from _values(batch.take(pa.array(wanted[done:until] - start)))
        start, done = end, until
        if done == len(wanted):
            return


def _values(batch: Any) -> list[Row | Unreadable]:
    try:
        rows: list[Row | Unreadable] = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        if batch.num_rows > 1:
            return [row for i in range(batch.num_rows) for row in _values(batch.slice(i, 1))]
        if isinstance(error, UnicodeDecodeError):
            return [Unreadable(_not_utf8(error))]
        return [Unreadable(f"cannot be decoded: {error}")]
    return rows


def _rows_of(path: Path) -> Callable[[int], str]:
    return lambda index: f"{path.name} row {index + 1}"


def _compressed(reader: Callable[[Path], Rows], ending: str) -> dict[str, Callable[[Path], Rows]]:
    return {f"{ending}{packed}": reader for packed in ("", ".gz", ".zst")}


READERS: dict[str, Callable[[Path], Rows]] = {
    **_compressed(_jsonl, ".jsonl"),
    **_compressed(_jsonl, ".ndjson"),
    **_compressed(_json, ".json"),
    **_compressed(read_csv, ".csv"),
    **_compressed(read_tsv, ".tsv"),
    ".parquet": _parquet,
    ".arrow": _arrow,
}
