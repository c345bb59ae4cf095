"""Where an optimizer step's time goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by what they were spent on; inside of another, they count for the inner one alone."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._inner = [0.0]
        self._cpu = time.process_time()

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - began
            own = took - self._inner.pop()
            self._inner[-1] += took
            self._spent[name] = self._spent.get(name, 0.0) + own

    def read(self) -> dict[str, float]:
        """What was spent since the last reading."""
        spent, self._spent = self._spent, {}
        return spent

    def cpu(self) -> float:
        """CPU-seconds that this process took since the last call."""
        before, self._cpu = self._cpu, time.process_time()
        return self._cpu - before
