"""A comparison of runs, put together."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from aligntune.compare import answers, curves, differ
from aligntune.compare.history import PastRun
from aligntune.compare.measures import measures
from aligntune.errors import ConfigError
from aligntune.report.charts import thin
from aligntune.report.compared import Comparison, Line, RunColumn


def compared(runs: Sequence[PastRun], output: Path, count: int = 5) -> Comparison:
    """`runs` held against the first of them, with `count` prompts of each kind.

    Raises:
        ConfigError: they are fewer than two.
    """
    if len(runs) < 2:
        found = f"only {runs[0].name!r} was" if runs else "none was"
        raise ConfigError(f"it takes two runs to compare, and {found} found; name more")
    letters = [_letter(number) for number in range(len(runs))]
    measured = measures(runs, letters)
    first, apart = answers.asked(runs, count)
    return Comparison(
        runs=tuple(_column(letter, run) for letter, run in zip(letters, runs, strict=True)),
        config=differ.config(runs),
        data=differ.data(runs),
        stages=differ.stages(runs),
        scores=measured.scores,
        overlays=curves.overlays(runs, output),
        first=first,
        apart=apart,
        notes=measured.notes,
        confidence=measured.confidence,
        tests=measured.tests,
    )


def _letter(number: int) -> str:
    turn, place = divmod(number, len(ascii_uppercase))
    return ascii_uppercase[place] + (str(turn) if turn else "")


def _column(letter: str, run: PastRun) -> RunColumn:
    return RunColumn(
        letter, run.name, run.algo, run.model, run.when, run.state, run.version, run.decision,
        run.why,
    )  # fmt: skip


def record(made: Comparison) -> dict[str, Any]:
    """A comparison as JSON values: NaN is null, runs are named by their letters, and a curve has
    at most a thousand points."""
    plain: dict[str, Any] = _finite(asdict(replace(made, overlays=())))
    letters = [run.letter for run in made.runs]
    for score in plain["scores"]:
        score["run"] = letters[score["run"]]
    plain["overlays"] = [
        {
            "stage": overlay.stage,
            "metric": overlay.metric,
            "lines": [_points(line, letters) for line in overlay.lines],
        }
        for overlay in made.overlays
    ]
    for row in (*plain["first"], *plain["apart"]):
        row["answers"] = {letters[number]: given for number, given in row["answers"].items()}
    return plain


def _points(line: Line, letters: Sequence[str]) -> dict[str, Any]:
    points = list(thin(list(zip(line.steps, line.values, strict=True))))
    return {
        "runs": [letters[number] for number in line.runs],
        "steps": [step for step, _ in points],
        "values": [_finite(value) for _, value in points],
    }


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
