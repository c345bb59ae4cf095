"""What a child process says: all of it in a file, and as much elsewhere as can be taken there."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

LOG = logging.getLogger("aligntune")

LARGEST = 10_000_000
"""Bytes of a log. What is older is in `<name>.1`, which is as long at most."""
LONGEST = 65_536
"""Characters that are read at once where no line ends."""


class Log:
    """A text file that is appended to and does not grow without end.

    A disk that is full costs its lines, never the work.
    """

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self.path = path
        self._largest = largest
        self._lost = False

    def write(self, line: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size > self._largest:
                self.path.replace(self.path.with_name(f"{self.path.name}.1"))
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{line}\n")
        except OSError as error:
            if not self._lost:
                LOG.warning("%s: lines are lost: %s", self.path, error)
            self._lost = True


def lines(stream: IO[str]) -> Iterator[str]:
    """The lines of a stream that was opened with `newline="\\n"`. Of a bar that draws over itself
    it is what was there last."""
    while text := stream.readline(LONGEST):
        yield text.rstrip("\r\n").rpartition("\r")[2].rstrip()


class Calm:
    """Passes lines on, but not more than `often` a second for long: a person reads no more, and
    servers have limits. What was left out is counted, and the last of it comes at the end.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        where: Path,
        *,
        often: float = 5.0,
        at_once: int = 100,
        last: int = 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._where = where
        self._often = often
        self._at_once = float(at_once)
        self._last = last
        self._clock = clock
        self._room, self._seen = self._at_once, clock()
        self._left_out = 0
        self._kept: list[str] = []

    def __call__(self, line: str) -> None:
        if not line:
            return
        now = self._clock()
        self._room = min(self._at_once, self._room + (now - self._seen) * self._often)
        self._seen = now
        if self._room < 1:
            self._left_out += 1
            self._kept = [*self._kept, line][-self._last :]
            return
        self._room -= 1
        self._tell_of_others(0)
        self._say(line)

    def close(self) -> None:
        """Say what came last."""
        self._tell_of_others(len(self._kept))
        for line in self._kept:
            self._say(line)
        self._kept = []

    def _tell_of_others(self, kept: int) -> None:
        if count := self._left_out - kept:
            self._say(f"... {count} lines more are in {self._where}")
        self._left_out = 0
        if not kept:
            self._kept = []
