"""Training curves of several runs over each other."""

from collections.abc import Mapping, Sequence, Set
from itertools import chain
from pathlib import Path

import orjson

from aligntune.compare.history import PastRun, PastStage
from aligntune.journal import FILE, complete_lines
from aligntune.paths import tracking_uri
from aligntune.recorded import history
from aligntune.report.compared import Line, Overlay

CURVES = (
    "train/loss",
    "eval/loss",
    "train/reward",
    "train/kl",
    "train/entropy",
    "train/completions/mean_length",
    "train/mean_token_accuracy",
    "train/rewards/accuracies",
    "train/rewards/margins",
    "train/grad_norm",
)
"""Training metrics that are worth a chart, in this order; MLflow has all of them."""
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
        return read_curves(stage.made.path / FILE)
    if stage.recorded is None or stage.artifact.startswith(("data-", "evaluate-")):
        return {}
    logged = history(stage.recorded, tracking_uri(output.absolute()), CURVES)
    return {
        metric: ([step for step, _ in points], [value for _, value in points])
        for metric, points in logged.items()
    }


def read_curves(journal: Path, more: Sequence[str] = ()) -> dict[str, Points]:
    """Metric -> (steps, values) of those in CURVES, and of those that begin with one of `more`."""
    lines = complete_lines(journal)
    rows = orjson.loads(b"[" + b",".join(lines) + b"]")
    found: dict[str, Points] = {}
    beginnings = tuple(more)
    names = set(chain.from_iterable(row["metrics"] for row in rows)) if beginnings else set()
    wanted = [*CURVES, *sorted(name for name in names if name.startswith(beginnings))]
    for name in dict.fromkeys(wanted):
        points = [(row["step"], row["metrics"][name]) for row in rows if name in row["metrics"]]
        if points:
            found[name] = ([step for step, _ in points], [value for _, value in points])
    return found
