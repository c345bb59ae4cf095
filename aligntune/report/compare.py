"""A comparison of runs as one HTML file: opens offline, runs no script, asks for nothing else."""

from pathlib import Path

from aligntune.artifacts import write_atomic
from aligntune.errors import ResourceError
from aligntune.report import charts, words
from aligntune.report.compared import Comparison
from aligntune.report.templates import environment
from aligntune.report.types import EvaluationRow


def render(made: Comparison) -> str:
    """The HTML of `made`; the same comparison gives the same bytes."""
    rows = [
        EvaluationRow(
            score.metric,
            _name(made, score.run),
            score.mean, score.low, score.high, score.count, score.higher_is_better, score.unit,
        )
        for score in made.scores
    ]  # fmt: skip
    page = environment().get_template("compare.html.j2")
    html = page.render(
        made=made,
        classes={_name(made, n): f"over s{n % 8} d{n // 8 % 3}" for n in range(len(made.runs))},
        metrics=list(dict.fromkeys(score.metric for score in made.scores)),
        intervals=charts.interval_charts(rows),
        overlays=[charts.overlay_chart(overlay) for overlay in made.overlays],
    )
    return words.visible(html)


def _name(made: Comparison, run: int) -> str:
    return f"{made.runs[run].letter} {made.runs[run].name}"


def write(made: Comparison, path: Path) -> None:
    """Put the page of `made` at `path`, whole or not at all.

    Raises:
        ResourceError: there can be no such file.
    """
    try:
        write_atomic(path, render(made))
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ResourceError(
            f"{path}: cannot be written: {reason}; name a file in a directory that exists"
        ) from None
