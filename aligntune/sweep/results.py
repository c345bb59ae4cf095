"""What the runs of a sweep came to: the best of them, and how sure that is."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligntune.artifacts import write_atomic
from aligntune.compare.comparison import compared
from aligntune.compare.history import PastRun, run_at
from aligntune.compare.measures import Evaluation, evaluation, measures
from aligntune.errors import AlignTuneError, DataError, unknown
from aligntune.plan import Plan
from aligntune.report.compared import Comparison, Score
from aligntune.sweep.runs import Run

LOG = logging.getLogger("aligntune.sweep")
PAGE = "compare.html"


@dataclass(frozen=True)
class Outcome:
    run: Run
    error: AlignTuneError | None = None
    """What it failed with."""

    @property
    def state(self) -> str:
        return "failed" if self.error else "finished"


@dataclass(frozen=True)
class Results:
    outcomes: tuple[Outcome, ...]
    metric: str
    ranked: tuple[Outcome, ...]
    """Those whose result was measured, the best first."""
    scores: Mapping[str, Score]
    """By name of the run; paired with the best."""
    lead: Score | None
    """The best one's, paired with the second."""
    comparison: Comparison | None
    """Of all that are ranked; of one alone there is none."""

    @property
    def best(self) -> Run:
        return self.ranked[0].run


def is_done(plan: Plan) -> bool:
    """Whether the run has been finished by an earlier command, with these very stages."""
    try:
        past = run_at(plan.paths.run)
    except DataError:
        return False
    made = {stage.artifact for stage in past.stages}
    return past.state == "finished" and all(
        entry.artifact and entry.stage.name in made for entry in plan.stages
    )


def measured(run: Run, root: Path, metric: str) -> float | None:
    """The mean of a metric of a finished run; None where it is not finite.

    Raises:
        DataError: the run was not measured by it, and so no other would be.
    """
    found = evaluation(_past(run, root))
    known = found.metrics if found else {}
    if metric not in known:
        raise DataError(f"{run.name} was not measured by it: {unknown('metric', metric, known)}")
    mean = float(known[metric]["mean"])
    return mean if math.isfinite(mean) else None


def results(outcomes: Sequence[Outcome], root: Path, metric: str | None) -> Results | None:
    """The runs in order of `metric`; None where none was measured by it, or not all alike."""
    finished = [outcome for outcome in outcomes if not outcome.error]
    past = {outcome.run.name: evaluation(_past(outcome.run, root)) for outcome in finished}
    found = {name: one for name, one in past.items() if one}
    if not found:
        return None
    chosen = metric or _first_quality(list(found.values()))
    if not _alike(chosen, list(found.values())):
        LOG.error(
            "%s means something else in each run, so none is the best by it; give another --metric",
            chosen,
        )
        return None
    values = {
        name: one.metrics[chosen]
        for name, one in found.items()
        if chosen in one.metrics and math.isfinite(one.metrics[chosen]["mean"])
    }
    if not values:
        return None
    sign = -1 if next(iter(values.values()))["higher_is_better"] else 1
    ranked = sorted(
        (outcome for outcome in finished if outcome.run.name in values),
        key=lambda outcome: sign * values[outcome.run.name]["mean"],
    )
    return _results(outcomes, chosen, ranked, root)


def _results(
    outcomes: Sequence[Outcome], metric: str, ranked: Sequence[Outcome], root: Path
) -> Results:
    past = [_past(outcome.run, root) for outcome in ranked]
    every = measures(past, [run.name for run in past]).scores
    scores = {past[score.run].name: score for score in every if score.metric == metric}
    lead = None
    if len(past) > 1:
        pair = measures((past[1], past[0]), ("second", "best")).scores
        lead = next(score for score in pair if score.metric == metric and score.run == 1)
    comparison = compared(past, root) if len(past) > 1 else None
    return Results(tuple(outcomes), metric, tuple(ranked), scores, lead, comparison)


def _first_quality(found: Sequence[Evaluation]) -> str:
    """The first quality metric that means the same everywhere; where none does, the first."""
    every = [(name, entry) for one in found for name, entry in one.metrics.items()]
    names = [name for name, entry in every if not entry.get("diagnostic")] or [every[0][0]]
    return next((name for name in names if _alike(name, found)), names[0])


def _alike(metric: str, found: Sequence[Evaluation]) -> bool:
    by = [one.instrument(metric) for one in found if metric in one.metrics]
    return all(one == by[0] for one in by)


def _past(run: Run, root: Path) -> PastRun:
    return run_at(root / "runs" / run.name)


def record(name: str, found: Results | None, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "sweep": name,
        "metric": found.metric if found else None,
        "best": found.best.name if found else None,
        "runs": [
            {
                "name": outcome.run.name,
                "settings": dict(outcome.run.point),
                "state": outcome.state,
                "error": str(outcome.error) if outcome.error else None,
                **_numbers(found.scores.get(outcome.run.name) if found else None),
            }
            for outcome in outcomes
        ],
    }


def _numbers(score: Score | None) -> dict[str, float | int | None]:
    if score is None:
        return {}
    numbers = {"mean": score.mean, "low": score.low, "high": score.high}
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()} | {
        "count": score.count
    }


def keep(folder: Path, name: str, found: Results | None, outcomes: Sequence[Outcome]) -> None:
    """Write the page and the record of a sweep into its folder."""
    from aligntune.report.compare import write

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record(name, found, outcomes), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / "sweep.json", text)
    if found and found.comparison:
        write(found.comparison, folder / PAGE)
