"""What a child process says: all of it in a file, and as much elsewhere as can be taken there."""

import logging
import os
import select
import time
from collections.abc import Callable, Iterator
from io import BufferedReader, RawIOBase, TextIOWrapper
from pathlib import Path
from typing import IO, Any

LOG = logging.getLogger("aligntune")

LARGEST = 10_000_000
"""Bytes of a log. What is older is in `<name>.1`, which is as long at most."""
LONGEST = 65_536
"""Characters that are read at once where no line ends."""
AGAIN = 0.2
"""Seconds between looks at whether who writes has ended."""
LAST = 5.0
"""Seconds that reading what it left behind may take: others may write there without end."""


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


def until_ended(pipe: IO[bytes], ended: Callable[[], bool]) -> TextIOWrapper:
    """What comes through `pipe` until whoever writes to it has `ended`, or nobody can any more: a
    process that lives on may hold it open for ever."""
    return TextIOWrapper(
        BufferedReader(_UntilEnded(pipe, ended)), "utf-8", errors="replace", newline="\n"
    )


class _UntilEnded(RawIOBase):
    def __init__(self, pipe: IO[bytes], ended: Callable[[], bool]) -> None:
        self._pipe = pipe
        self._ended = ended
        self._over: float | None = None
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._over is None and self._ended():
                self._over = time.monotonic() + LAST
            # What was written before the end is there already.
            if self._poll.poll(0 if self._over else 1000 * AGAIN):
                break
            if self._over:
                return 0
        if self._over and time.monotonic() > self._over:
            return 0
        return os.readv(self._pipe.fileno(), [buffer])

    def close(self) -> None:
        self._pipe.close()
        super().close()


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
