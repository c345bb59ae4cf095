"""Text files as bytes, and what is said of one that is broken."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from aligntune.errors import DataError

BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what the libraries say of a broken file into a DataError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, EOFError, csv.Error) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read: {reason}; repair or replace the file") from error


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The text's bytes, decompressed if its name says so. DataError for UTF-16."""
    import pyarrow as pa

    with pa.input_stream(str(path), compression="detect") as stream:
        file = io.BufferedReader(stream, 1 << 20)
        start = file.peek(2)[:2]
        if start in _UTF_16 or b"\0" in start:
            raise DataError(f"{path}: is UTF-16; save the file as UTF-8")
        yield file
