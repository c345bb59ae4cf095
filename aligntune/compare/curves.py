"""Training curves of several runs over each other."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from aligntune.compare.history import PastRun, PastStage
from aligntune.journal import FILE, curves
from aligntune.paths import tracking_uri
from aligntune.recorded import history
from aligntune.report.charts import CURVES
from aligntune.report.compared import Line, Overlay

LOSSES = ("train/loss", "eval/loss")
"""Mean something else for each algorithm."""

Points = tuple[list[int], list[float]]


def overlays(runs: Sequence[PastRun], output: Path) -> tuple[Overlay, ...]:
    """The curves of each training stage; those of the last one are together whatever its algorithm,
    but for losses."""
    shared: dict[str, list[int]] = {}
    labels: dict[tuple[str, str], dict[str, None]] = {}
    lines: dict[tuple[str, str], dict[str, Points]] = {}
    for number, run in enumerate(runs):
        for stage in run.stages:
            source = stage.artifact or str(stage.recorded)
            shared.setdefault(source, []).append(number)
            if len(shared[source]) > 1:
                continue
            for metric, points in _curves(stage, output).items():
                alike = stage.label == run.algo and metric not in LOSSES
                key = ("last" if alike else stage.label, metric)
                labels.setdefault(key, {})[stage.label] = None
                lines.setdefault(key, {})[source] = points
    last = {run.algo for run in runs}
    return tuple(
        Overlay(
            " / ".join(labels[key]),
            key[1],
            tuple(Line(tuple(shared[source]), *points) for source, points in lines[key].items()),
        )
        for key in sorted(lines, key=lambda key: _order(key, last))
    )


def _order(key: tuple[str, str], last: Set[str]) -> tuple[bool, int]:
    """The last stages' first, then as in CURVES."""
    place, metric = key
    known = CURVES.index(metric) if metric in CURVES else len(CURVES)
    return place != "last" and place not in last, known


def _curves(stage: PastStage, output: Path) -> Mapping[str, Points]:
    if stage.made:
        return curves(stage.made.path / FILE, CURVES.__contains__)
    if stage.recorded is None or stage.artifact.startswith(("data-", "evaluate-")):
        return {}
    logged = history(stage.recorded, tracking_uri(output.absolute()), CURVES)
    return {
        metric: ([step for step, _ in points], [value for _, value in points])
        for metric, points in logged.items()
    }
