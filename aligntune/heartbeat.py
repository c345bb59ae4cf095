"""Signs of life of a process that somebody watches, and how far it is.

A sign is given where the work gets on: a forward pass, a step, a batch of rows, a line of progress.
No thread gives any, because that one would go on while the work hangs.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Is told (done, in all, what to show beside them)."""
EVERY = 1.0
"""Seconds between two signs that are written: a forward pass may take a millisecond."""


@dataclass(frozen=True)
class Standing:
    """How far the work is."""

    done: int
    total: int
    shown: Mapping[str, float]


class _Pulse:
    def __init__(self, file: Path) -> None:
        self.file = file
        self._last: dict[str, float] = {}

    def due(self, what: str) -> bool:
        now = time.monotonic()
        if now - self._last.get(what, -EVERY) < EVERY:
            return False
        self._last[what] = now
        return True


_watched: list[_Pulse] = []
"""The pulse of this process, where somebody watches it."""


def watched(file: Path) -> None:
    """From now on the signs of this process are seen in `file`."""
    file.touch()
    _watched[:] = [_Pulse(file)]


def beat(*_: object, **__: object) -> None:
    """The work got on. Costs nothing where nobody watches; takes anything, to be used as a hook."""
    for pulse in _watched:
        if pulse.due("beat"):
            with suppress(OSError):  # a sign that cannot be given must not end the work
                os.utime(pulse.file)


def tell(done: int, total: int, shown: Mapping[str, float]) -> None:
    """The work got on to `done` of `total`, with `shown` to see beside it."""
    for pulse in _watched:
        if pulse.due("tell") or done >= total:
            staging = pulse.file.with_suffix(".next")
            with suppress(OSError):
                staging.write_text(json.dumps({"done": done, "total": total, "shown": dict(shown)}))
                staging.replace(pulse.file)


class Signs:
    """What the one who watches sees."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._last = 0

    def fresh(self) -> bool:
        """Whether there was a sign since the last look."""
        try:
            at = self._file.stat().st_mtime_ns
        except OSError:
            return False
        before, self._last = self._last, at
        return at != before

    def standing(self) -> Standing | None:
        """None until the work has said how far it is."""
        try:
            return Standing(**json.loads(self._file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
