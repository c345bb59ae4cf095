"""Rows of csv and tsv files, as programs and spreadsheets write them."""

import csv
import io
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from aligntune.data.rows import Row, Rows, Unreadable
from aligntune.data.streams import opened, readable
from aligntune.errors import DataError

MAX_CELL = 2**26
"""Bytes of a cell; the rules for rows refuse much less than that by name."""
DELIMITERS = (",", ";", "\t")
"""What csv files are separated by, the usual one first."""
_SAID = "sep="
"""What a spreadsheet's first line may start with, before the delimiter."""

Record = list[str] | Unreadable
Reader = Callable[[Record], Row | Unreadable]


def read_csv(path: Path) -> Rows:
    """Rows separated by the one of DELIMITERS that makes most columns of the first line."""
    return _rows(path, _delimiter(path))


def columns_of(path: Path, *, tabs: bool) -> tuple[str, ...]:
    """The names in the first line of such a file."""
    _, names = _heading(path, _records(path, "\t" if tabs else _delimiter(path)))
    return tuple(names)


def _delimiter(path: Path) -> str:
    with opened(path) as file:
        start = file.readline(MAX_CELL).decode("utf-8-sig", errors="replace")
    first = next(iter(start.splitlines()), "")
    if first.lower().startswith(_SAID) and len(first) == len(_SAID) + 1:
        return first[-1]
    return max(DELIMITERS, key=partial(_columns, first))


def _columns(line: str, delimiter: str) -> int:
    return len(next(csv.reader([line], delimiter=delimiter), []))


def read_tsv(path: Path) -> Rows:
    """Rows separated by tabs."""
    return _rows(path, "\t")


def refuse_same(where: str, names: Sequence[str]) -> None:
    """DataError for a name that two columns have."""
    if len(set(names)) < len(names):
        raise DataError(f"{where}: two columns have the same name; rename one")


def _rows(path: Path, delimiter: str) -> Rows:
    """Every cell is text: what looks like a number may be an answer such as `007`."""
    records = partial(_records, path, delimiter)
    read = records()
    row, names = _heading(path, read)
    lines = array("Q", (line for line, _ in read))

    def at(indices: Sequence[int]) -> Iterator[Row | Unreadable]:
        wanted = iter(indices)
        index = next(wanted, None)
        with readable(path):
            for position, (_, cells) in enumerate(islice(records(), 1, None)):
                if position != index:
                    continue
                yield row(cells)
                index = next(wanted, None)
                if index is None:
                    return

    return Rows(tuple(names), len(lines), at, lambda index: f"{path.name}:{lines[index]}")


def _heading(path: Path, read: Iterator[tuple[int, Record]]) -> tuple[Reader, list[str]]:
    """What makes rows of the records after the first, and the columns that it names."""
    nothing: tuple[int, Record] = (1, [])
    line, header = next(read, nothing)
    if isinstance(header, Unreadable):
        raise DataError(f"{path}:{line}: {header.reason}")
    unnamed = [position for position, name in enumerate(header) if not name.strip()]
    names = [name if name.strip() else f"column {i}" for i, name in enumerate(header, start=1)]
    row = partial(_row, names, unnamed)
    if isinstance(named := row(names), Unreadable):
        raise DataError(f"{path}:{line}: {named.reason}; save the file as UTF-8")
    refuse_same(f"{path}:{line}", names)
    return row, names


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, Record]]:
    """(line on which it starts, cells) of every record with something in it.

    DataError for a quote that is left open, as it makes one cell of all that follows.
    """
    csv.field_size_limit(MAX_CELL)
    start = 1
    with opened(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        while (cells := _next(reader, f"{path}:{start}")) is not None:
            # Spreadsheets export empty rows below the last, and say the delimiter above all.
            if isinstance(cells, Unreadable) or (
                any(cells) and not (start == 1 and cells == [_SAID, ""])
            ):
                yield start, cells
            start = reader.line_num + 1


def _next(reader: Iterator[list[str]], place: str) -> Record | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        # Anywhere else Python's reader leaves the quotes out, and says nothing.
        if "expected after" in str(error):
            return Unreadable('text follows the quote that ends a cell; write "" for a quote in it')
        if "unexpected end" in str(error):
            raise DataError(f"{place}: a quote is opened and never closed; close it") from None
        raise DataError(f"{place}: {error}; most likely a quote that is not closed") from None


def _row(names: Sequence[str], unnamed: Sequence[int], cells: Record) -> Row | Unreadable:
    if isinstance(cells, Unreadable):
        return cells
    if len(cells) != len(names):
        return Unreadable(f"{len(cells)} cells, but the header has {len(names)}", cells)
    for cell in cells:
        if not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell):
            return Unreadable("text is not UTF-8", cells)
    row: Row = dict(zip(names, cells, strict=True))
    for position in unnamed:
        if not cells[position]:
            del row[names[position]]
    return row
