"""The page of a run. The template escapes every value; no text is marked as safe anywhere."""

from pathlib import Path

from aligntune.artifacts import write_atomic
from aligntune.report import charts, data, words
from aligntune.report.templates import environment
from aligntune.report.types import EvaluationRow, RunReport


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
            columns=data.columns,
            facts=data.facts,
            source_title=data.title,
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
        if row.headline:
            of_metric.setdefault(row.metric, []).append(row)
    return [(same[0], same[-1]) for same in of_metric.values()]
