"""The page of a run. The template escapes every value; no text is marked as safe anywhere."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from aligntune.artifacts import write_atomic
from aligntune.report import charts, words
from aligntune.report.types import EvaluationRow, RunReport

if TYPE_CHECKING:
    from jinja2 import Environment


def render(report: RunReport) -> str:
    """The HTML of `report`; the same report gives the same bytes."""
    html = (
        environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            headlines=_headlines(report.evaluations),
            intervals=charts.interval_charts(report.evaluations),
            curves=[charts.curve_chart(curve) for curve in report.curves],
        )
    )
    return words.visible(html)


def write(report: RunReport, path: Path) -> None:
    """Put the page of `report` at `path`, whole or not at all."""
    write_atomic(path, render(report))


def _headlines(rows: tuple[EvaluationRow, ...]) -> list[tuple[EvaluationRow, EvaluationRow]]:
    """The first and the last model of each metric; twice the same where there is only one."""
    of_metric: dict[str, list[EvaluationRow]] = {}
    for row in rows:
        of_metric.setdefault(row.metric, []).append(row)
    return [(same[0], same[-1]) for same in of_metric.values()]


@cache
def environment() -> "Environment":
    """Where templates are found, and what they can call."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        words.number, words.measure, words.span, words.signed, words.signed_span,
        words.difference_unit, words.percent, words.duration, words.moment, words.shorten,
        words.web, words.beside,
    )  # fmt: skip
    made.filters.update({function.__name__: function for function in filters})
    return made
