"""When a child process has to end: it took too long, or shows no sign of life."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aligntune.config.logging import Launch
from aligntune.heartbeat import Signs
from aligntune.processes import stat

BUSY = 0.01
"""Share of a core from which on a process counts as computing."""
PATIENCE = 4
"""So many times longer a process may compute without getting on: an endless loop computes too."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Limits:
    """Seconds; None for no limit."""

    timeout: float | None = None
    """That it may take in all."""
    silence: float | None = None
    """Without a sign of life."""

    @classmethod
    def of(cls, launch: Launch) -> "Limits":
        return cls(launch.timeout, launch.hang_timeout)


UNLIMITED = Limits()


class Supervisor:
    """Looks at one child again and again."""

    def __init__(
        self,
        process: int,
        signs: Signs,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        computed: Callable[[int], float | None] | None = None,
    ) -> None:
        """`process` leads a session of its own, and everything that it starts is in there."""
        self._process = process
        self._signs = signs
        self._limits = limits
        self._clock = clock
        self._computed = computed or computed_by
        self._began = self._alive = clock()
        self._spent = self._computed(process)

    def seen(self) -> None:
        """There was a sign of life."""
        self._alive = self._clock()
        self._spent = self._computed(self._process)

    def overdue(self) -> str | None:
        """Why its time is over, if it is."""
        limit = self._limits.timeout
        if limit is None or self._clock() - self._began < limit:
            return None
        return f"its time is over (launch.timeout: {limit:g} s)"

    def hanging(self) -> str | None:
        """Why it is taken to hang, if it is."""
        if self._signs.fresh():
            self.seen()
        limit, silent = self._limits.silence, self._clock() - self._alive
        if limit is None or silent < limit:
            return None
        if silent < PATIENCE * limit and self._busy(silent):
            return None
        return f"no sign of life for {silent:.0f} s (launch.hang_timeout: {limit:g} s)"

    def _busy(self, silent: float) -> bool:
        now = self._computed(self._process)
        if now is None or self._spent is None:
            return True  # not known here
        return now - self._spent >= BUSY * silent


def computed_by(session: int) -> float | None:
    """Seconds of CPU time that the living processes of a session have used; None where the kernel
    does not say."""
    found = [fields for fields in map(stat, Path("/proc").glob("[0-9]*")) if fields]
    own = [fields for fields in found if int(fields[3]) == session]
    # In user and kernel mode, and the same of children that have ended.
    return sum(int(ticks) for fields in own for ticks in fields[11:15]) / _TICKS if found else None
