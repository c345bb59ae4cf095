"""The canonical rows of all sources between reading and writing: on disk, each one once."""

import mmap
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from aligntune.data.rows import BATCH, batched


class Column:
    """Byte strings on disk, numbered as they were added, all of them before the first is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._offsets = array("q", [0])

    def extend(self, items: Sequence[bytes]) -> None:
        self._file.write(b"".join(items))
        sizes = np.fromiter(map(len, items), np.int64, len(items))
        self._offsets.frombytes((self._offsets[-1] + np.cumsum(sizes)).tobytes())

    def flush(self) -> None:
        """Everything that was added can be read."""
        import pyarrow as pa

        self._file.flush()
        end = self._offsets[-1]
        there = mmap.mmap(self._file.fileno(), end, access=mmap.ACCESS_READ) if end else b""
        buffers = [None, pa.py_buffer(self._offsets), pa.py_buffer(there)]
        count = len(self._offsets) - 1
        self._items = pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, buffers)

    def blocks(self, numbers: Iterable[int]) -> Iterator[Any]:
        """Arrow arrays of those with these numbers, in this order, BATCH in each."""
        import pyarrow as pa

        for some in batched(numbers, BATCH):
            yield self._items.take(pa.array(some, pa.int64()))


class Pool:
    """Encoded rows with their tokens. In memory there are some 25 bytes per row; of the
    files as much as the system has room for."""

    def __init__(self, lines: IO[bytes], tokens: IO[bytes]) -> None:
        self._lines = Column(lines)
        self._tokens = Column(tokens)
        self.keys = array("Q")
        """By row number, 64 bits that are equal for equal questions."""

    def __len__(self) -> int:
        return len(self.keys)

    def extend(self, lines: Sequence[bytes], tokens: Sequence[bytes], keys: Sequence[int]) -> None:
        """Add rows: each one's line, its packed tokens and the key of its question."""
        self._lines.extend(lines)
        self._tokens.extend(tokens)
        self.keys.extend(keys)

    def lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The encoded rows with these numbers, in this order."""
        for block in self._lines.blocks(numbers):
            yield from block.to_pylist()

    def texts(self, numbers: Iterable[int]) -> Iterator[memoryview]:
        """The same, many in each text."""
        for block in self._lines.blocks(numbers):
            yield memoryview(block.buffers()[2])

    def tokens(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """Their tokens."""
        for block in self._tokens.blocks(numbers):
            yield from block.to_pylist()

    def flush(self) -> None:
        """Everything that was added can be read."""
        self._lines.flush()
        self._tokens.flush()
