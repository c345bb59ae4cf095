"""Runs and comparisons in the terminal, 80 columns wide. No text in them is trusted."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from aligntune.compare.filters import facts
from aligntune.compare.history import PastRun
from aligntune.config.naming import printable
from aligntune.console import figure, table
from aligntune.report import words
from aligntune.report.compared import Asked, Comparison, Line, Score

HEADLINES = (
    "exact_match", "preference_accuracy", "reward", "nll", "perplexity",
)  # fmt: skip
"""Metrics that a list of runs shows, as far as it has room."""
MOST_HEADLINES = 2
VALUE = 48
"""Characters of a setting's value."""
ANSWER = 200
"""Characters of an answer or a prompt."""
SPARKS = 24
BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-:=+*#"


def show_runs(runs: Sequence[PastRun], console: Console) -> None:
    """One line per run, and what stopped those that did not finish."""
    metrics = [name for name in HEADLINES if any(name in run.metrics for run in runs)]
    metrics = metrics[:MOST_HEADLINES]
    decided = any(run.decision for run in runs)
    rows = [
        (
            run.name,
            run.when[:16],
            run.algo,
            run.model.rstrip("/").rpartition("/")[2][:20],
            run.state,
            *(figure(run.metrics.get(name)) for name in metrics),
            *([run.decision or "-"] if decided else []),
            run.version or "-",
        )
        for run in runs
    ]
    verdict = ("decision",) if decided else ()
    columns = ("run", "started", "algo", "model", "state", *metrics, *verdict, "registered as")
    console.print(_table(columns, rows))
    for run in runs:
        if run.error:
            _say(console, f"{run.name}: {run.error}", "dim")


def run_record(run: PastRun) -> dict[str, Any]:
    """A run as JSON values."""
    return {
        "name": run.name,
        "folder": str(run.folder) if run.folder else None,
        "started": run.when,
        "state": run.state,
        "error": run.error or None,
        "algo": run.algo,
        "model": run.model,
        "version": run.version or None,
        "decision": run.decision or None,
        "why": run.why or None,
        "registered_model": run.registered.get("registered_model"),
        "metrics": {name: facts(run)[name] for name in run.metrics},
    }


def show_comparison(made: Comparison, console: Console) -> None:
    for title, draw in (
        ("", _runs),
        ("Settings that differ", _config),
        ("Data", _data),
        ("Stages", _stages),
        ("Results", _scores),
        ("Curves", _curves),
        ("First answers", _first),
        ("Answers furthest apart", _apart),
    ):
        if title:
            console.print(f"\n{title}", style="bold")
        draw(made, console)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(printable(text), markup=False, highlight=False, style=style)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    cells = [tuple(map(printable, row)) for row in rows]
    return table("", tuple(map(printable, columns)), cells)


def _runs(made: Comparison, console: Console) -> None:
    rows = [
        (run.letter, run.name, run.algo, run.when[:16], run.state,
         run.version or "-")
        for run in made.runs
    ]  # fmt: skip
    console.print(_table(("", "run", "algo", "started", "state", "version"), rows))


def _config(made: Comparison, console: Console) -> None:
    if not made.config:
        _say(console, "None: the configs are the same.")
        return
    rows = [(change.key, _grouped(made, change.values)) for change in made.config]
    console.print(_table(("setting", "values"), rows))


def _grouped(made: Comparison, values: Sequence[str | None]) -> str:
    """`0.1 (A, C)  0.5 (B)`: every value with the runs that have it."""
    holders: dict[str | None, list[str]] = {}
    for run, value in zip(made.runs, values, strict=True):
        holders.setdefault(value, []).append(run.letter)
    return "  ".join(
        f"{'not set' if value is None else _cut(value, VALUE)} ({', '.join(letters)})"
        for value, letters in holders.items()
    )


def _data(made: Comparison, console: Console) -> None:
    rows = []
    for change in made.data:
        name = f"{change.label} {change.split}"
        if change.same and change.sides[0]:
            side = change.sides[0]
            rows.append((name, "all", f"{side.rows:,}", side.digest[:12],
                         _cut(side.sources, VALUE)))  # fmt: skip
            continue
        groups: dict[Any, list[str]] = {}
        for run, other in zip(made.runs, change.sides, strict=True):
            groups.setdefault(other, []).append(run.letter)
        for other, letters in groups.items():
            facts_of = (
                (f"{other.rows:,}", other.digest[:12], _cut(other.sources, VALUE))
                if other
                else ("-", "-", "-")
            )
            rows.append((name, ", ".join(letters), *facts_of))
            name = ""
    console.print(_table(("data", "runs", "rows", "digest", "sources"), rows))


def _stages(made: Comparison, console: Console) -> None:
    shared = [change.label for change in made.stages if change.same]
    _say(console, f"shared by all: {', '.join(shared) or 'none'}")
    rows = []
    for change in made.stages:
        if not change.same:
            groups: dict[str | None, list[str]] = {}
            for run, name in zip(made.runs, change.artifacts, strict=True):
                groups.setdefault(name, []).append(run.letter)
            told = " | ".join(
                " ".join(letters) for name, letters in groups.items() if name is not None
            )
            rows.append((change.label, told, change.why))
    if rows:
        console.print(_table(("stage", "alike", "because of"), rows))


def _scores(made: Comparison, console: Console) -> None:
    if not made.scores:
        _say(console, "No result was evaluated.")
    else:
        first = made.runs[0].letter
        head = ("run", "mean", "interval", f"vs {first} (interval)", "p", "")
        rows = [(made.runs[score.run].letter, *_measured(score)) for score in made.scores]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        _say(console, _line(head, widths), "dim")
        metric = None
        for score, row in zip(made.scores, rows, strict=True):
            if score.metric != metric:
                _say(console, score.metric, "bold")
                metric = score.metric
            _say(console, _line(row, widths))
        told = f"Intervals at {made.confidence:.0%}; differences are paired by prompt."
        if made.tests > 1:
            told += f" p is corrected for {made.tests} tests after Holm."
        _say(console, told, "dim")
    for run in made.runs:
        if run.decision:
            _say(console, f"{run.letter} was decided: {run.decision}. {run.why}")
    for note in made.notes:
        _say(console, note)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"  {'  '.join(padded)}".rstrip()


def _measured(score: Score) -> tuple[str, ...]:
    """(mean, interval, difference, p, verdict)."""
    unit, paired = score.unit, score.paired
    cells = [words.measure(score.mean, unit), words.span(score.low, score.high, unit)]
    if paired:
        interval = words.signed_span(paired.low, paired.high, unit)
        cells += [
            f"{words.signed(paired.difference, unit)} ({interval})",
            f"{paired.adjusted:.3f}",
            paired.verdict,
        ]
    return tuple(map(_ascii, cells)) + ("",) * (5 - len(cells))


def _curves(made: Comparison, console: Console) -> None:
    bars = BARS if console.encoding.startswith("utf") else PLAIN_BARS
    rows = []
    for overlay in made.overlays:
        name = f"{overlay.metric.removeprefix('train/')} ({overlay.stage})"
        for line in overlay.lines:
            finite = [value for value in line.values if math.isfinite(value)]
            ends = (figure(finite[0]), figure(finite[-1])) if finite else ("-", "-")
            rows.append((name, ", ".join(made.runs[n].letter for n in line.runs), *ends,
                         sparkline(line, overlay.lines, bars)))  # fmt: skip
            name = ""
    if not rows:
        _say(console, "None was recorded.")
        return
    console.print(_table(("metric (stage)", "run", "first", "last", ""), rows))


def sparkline(line: Line, together: Iterable[Line], bars: str = BARS) -> str:
    """A curve in at most SPARKS characters, on the scale of all that are `together`."""
    every = [v for other in together for v in other.values if math.isfinite(v)]
    values = list(line.values)
    size = max(math.ceil(len(values) / SPARKS), 1)
    low, high = min(every, default=0.0), max(every, default=0.0)
    drawn = ""
    for start in range(0, len(values), size):
        bucket = [value for value in values[start : start + size] if math.isfinite(value)]
        if not bucket:
            drawn += " "
            continue
        share = (sum(bucket) / len(bucket) - low) / (high - low) if high > low else 0.5
        drawn += bars[min(int(share * len(bars)), len(bars) - 1)]
    return drawn


def _first(made: Comparison, console: Console) -> None:
    _answers(made, made.first, console)


def _apart(made: Comparison, console: Console) -> None:
    _answers(made, made.apart, console)


def _answers(made: Comparison, rows: Sequence[Asked], console: Console) -> None:
    if not rows:
        _say(console, "None.")
    for row in rows:
        asked = row.prompt[-1]["content"] if row.prompt else ""
        _say(console, f"? {_cut(asked, ANSWER)}", "bold")
        if row.reference is not None:
            _say(console, f"= {_cut(row.reference, ANSWER)}", "dim")
        for number, given in row.answers.items():
            scores = "  ".join(f"{name} {figure(value)}" for name, value in given.scores.items())
            text = _cut(given.text or "", ANSWER) or "(empty)"
            _say(console, f"{made.runs[number].letter}: {text}")
            _say(console, f"   {scores}", "dim")


def _cut(text: str, room: int) -> str:
    plain = printable(" ".join(text.split()))
    return plain if len(plain) <= room else plain[: room - 3] + "..."


def _ascii(text: str) -> str:
    """Numbers as a terminal's copy and paste wants them."""
    return text.replace(words.MINUS, "-").replace(words.SPACE, " ")
