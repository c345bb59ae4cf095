"""Where a trainer works in a test, and when it is asked to stop."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

from aligntune.train.loop import Setting


def place(folder: Path, stopping: Callable[[], bool] = lambda: False) -> Setting:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return Setting(folder, folder / "work", "key", lambda *_: None, stopping)


def at_look(number: int) -> Callable[[], bool]:
    """Says that it is time to stop when it is asked for the so-manieth time."""
    looks = count(1)
    return lambda: next(looks) == number
