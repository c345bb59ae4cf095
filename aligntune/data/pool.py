"""The canonical rows of all sources between reading and writing: on disk, each one once."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from typing import IO

from aligntune.data.mix import key
from aligntune.data.rows import ANSWER, Row, encode, question_of


class Pool:
    """Encoded rows, numbered as they were added, all of them before the first is read.

    In memory there are some 200 bytes per row.
    """

    def __init__(self, file: IO[bytes], seed: int) -> None:
        self._file = file
        self._seed = seed
        self._ends = array("Q", [0])
        self._seen: set[bytes] = set()
        self.keys = array("Q")
        """By row number, 64 bits that are equal for equal questions."""
        self.answers = False
        """Whether any row has a reference answer."""

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, row: Row) -> bool:
        """False if the very same row is there already; it is then not added."""
        line = encode(row)
        digest = hashlib.sha256(line).digest()[:16]
        if digest in self._seen:
            return False
        self._seen.add(digest)
        self._file.write(line)
        self._ends.append(self._ends[-1] + len(line))
        self.keys.append(key(self._seed, "question", question_of(row)))
        self.answers = self.answers or ANSWER in row
        return True

    def lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The encoded rows with these numbers, in this order."""
        for number in numbers:
            start, end = self._ends[number], self._ends[number + 1]
            self._file.seek(start)
            yield self._file.read(end - start)
