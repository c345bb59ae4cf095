"""What a person sees while a run goes on: live bars in a terminal, a few plain lines elsewhere."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from aligntune.config.naming import printable
from aligntune.errors import public

LOG = logging.getLogger("aligntune")

QUIET_EVERY = 30.0
"""Seconds between lines about one stage where the output is not a terminal."""

Show = Callable[[int, int, Mapping[str, float]], None]


QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "true",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What keeps the libraries from drawing bars of their own and from reporting home."""


def configure(level: str, console: Console) -> None:
    """Log through `console`, and keep the libraries' own chatter to warnings.

    Has to run before they are imported.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    handler: logging.Handler = RichHandler(
        console=console, show_path=False, show_level=False, omit_repeated_times=False
    )
    if not console.is_terminal:
        handler = logging.StreamHandler(console.file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(Safe())
    logging.basicConfig(level="WARNING", handlers=[handler], force=True)
    LOG.setLevel(level)


def screen(*, stderr: bool = False) -> Console:
    """Where a person reads; as wide as its tables need where it is not a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, TextIOWrapper):  # what a terminal cannot show is no reason to fail
        stream.reconfigure(errors="backslashreplace")
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=160)


class Safe(logging.Filter):
    """Lines hold what models wrote and what servers' clients say: no character of a line moves the
    cursor, and no URL has a password."""

    def filter(self, record: logging.LogRecord) -> bool:
        lines = public(record.getMessage()).split("\n")
        record.msg, record.args = "\n".join(map(printable, lines)), None
        return True


@contextmanager
def stage_progress(console: Console, label: str) -> Iterator[Show]:
    """Shows one stage while the block runs."""
    if console.is_terminal:
        with _live(console, label) as show:
            yield show
    else:
        LOG.info("%s ...", label)
        yield _Quiet(label)


@contextmanager
def _live(console: Console, label: str) -> Iterator[Show]:
    columns: list[ProgressColumn] = [
        TextColumn("[bold]{task.description:<14}"),
        BarColumn(bar_width=28),
        _Counts(),
        TextColumn("[cyan]{task.fields[shown]}"),
    ]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=None, shown="")

        def show(done: int, total: int, values: Mapping[str, float]) -> None:
            progress.update(task, completed=done, total=total, shown=_values(values))

        yield show


class _Counts(ProgressColumn):
    """`12/60  3.1 s each  2:29 left`."""

    def render(self, task: Task) -> Text:
        if not task.total:
            return Text(clock(task.elapsed or 0), style="dim")
        text = f"{task.completed:.0f}/{task.total:.0f}"
        if task.completed and task.elapsed:
            each = task.elapsed / task.completed
            left = each * (task.total - task.completed)
            text += f"  {each:.2f} s each  {clock(left)} left"
        return Text(text, style="green")


class _Quiet:
    """A line now and then."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._began = self._last = time.monotonic()

    def __call__(self, done: int, total: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        if done and now - self._last >= QUIET_EVERY:
            self._last = now
            left = (now - self._began) / done * (total - done)
            shown = _values(values)
            LOG.info("%s %d/%d  %s  %s left", self._label, done, total, shown, clock(left))


def _values(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def clock(seconds: float) -> str:
    """`2:05`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def figure(value: float | None) -> str:
    """Four digits, or a dash where there is no value."""
    return "-" if value is None else f"{value:.4g}"


def table(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Table:
    """A plain table; every cell is shown as text, never as markup."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    return made
