"""A stage's metrics by step, on disk before anywhere else.

One JSON object per line: {"step": 10, "time": <ms since 1970>, "metrics": {"train/loss": 0.5}}.
A resumed stage repeats the steps after its checkpoint with the same values, so a metric is not
written again up to its last step in the journal, and what reads the journal sees every step once.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = "metrics.jsonl"
SAMPLES = "samples.jsonl"
"""Answers of a model in training, beside the journal."""


@dataclass(frozen=True)
class Row:
    step: int
    time: int
    """Milliseconds since 1970, when the row was first written."""
    metrics: dict[str, float]


class Journal:
    def __init__(self, path: Path) -> None:
        self.path = path
        drop_torn_line(path)
        self._last: dict[str, int] = {}
        """Metric -> its last step. Steps only rise, but for those that a resumed stage repeats."""
        for row in read(path):
            self._remember(row.step, row.metrics)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append what the journal does not have yet of this step, or a later one."""
        new = {name: value for name, value in metrics.items() if step > self._last.get(name, -1)}
        if not new:
            return
        self._remember(step, new)
        row = {"step": step, "time": time.time_ns() // 1_000_000, "metrics": new}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def _remember(self, step: int, names: Iterable[str]) -> None:
        self._last.update((name, max(step, self._last.get(name, step))) for name in names)

    def sync(self) -> None:
        """Bring everything written so far to the disk itself."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read(path: Path, offset: int = 0) -> Iterator[Row]:
    """Complete rows from byte `offset` on."""
    for line in complete_lines(path, offset):
        row = json.loads(line)
        yield Row(row["step"], row["time"], row["metrics"])


def curves(path: Path, wanted: Callable[[str], bool]) -> dict[str, tuple[list[int], list[float]]]:
    """Metric -> (steps, values) of those that are `wanted`, in the order in which they begin."""
    import orjson

    found: dict[str, tuple[list[int], list[float]]] = {}
    known: dict[str, bool] = {}
    for line in complete_lines(path):
        row = orjson.loads(line)
        for name, value in row["metrics"].items():
            if name not in known:
                known[name] = wanted(name)
            if known[name]:
                steps, values = found.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(value)
    return found


def append(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Add a line for each row, and bring them to the disk itself."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def complete_lines(path: Path, offset: int = 0) -> list[bytes]:
    """Whole lines from byte `offset` on; a line that is still being written is left out."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(offset)
        text = file.read()
    return text[: text.rfind(b"\n") + 1].splitlines(keepends=True)


def drop_torn_line(path: Path) -> None:
    """Cut off a line that a killed process left unfinished."""
    whole = sum(len(line) for line in complete_lines(path))
    if path.exists() and path.stat().st_size > whole:
        os.truncate(path, whole)
