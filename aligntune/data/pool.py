"""The canonical rows of all sources between reading and writing: on disk, each one once."""

import os
from array import array
from collections.abc import Iterable, Iterator
from typing import IO


class Pool:
    """Encoded rows with their tokens, numbered as they were added, all of them before the first is
    read.

    In memory there are some 30 bytes per row.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._starts = array("Q")
        self._tokens = array("Q")
        self._end = 0
        self.keys = array("Q")
        """By row number, 64 bits that are equal for equal questions."""

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, line: bytes, tokens: bytes, key: int) -> None:
        self._file.write(line + tokens)
        self._starts.append(self._end)
        self._tokens.append(self._end + len(line))
        self._end += len(line) + len(tokens)
        self.keys.append(key)

    def lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The encoded rows with these numbers, in this order."""
        for number in numbers:
            start = self._starts[number]
            yield self._read(start, self._tokens[number])

    def tokens(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """Their tokens."""
        for number in numbers:
            last = number + 1 == len(self)
            yield self._read(self._tokens[number], self._end if last else self._starts[number + 1])

    def _read(self, start: int, end: int) -> bytes:
        return os.pread(self._file.fileno(), end - start, start)

    def flush(self) -> None:
        """Everything that was added can be read."""
        self._file.flush()
