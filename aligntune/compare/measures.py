"""What the results of runs score, and how they differ from the first run's, by prompt."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligntune.compare.history import PastRun
from aligntune.compare.instruments import instrument
from aligntune.evaluate.margin import holm
from aligntune.evaluate.stats import mean_by_prompt, paired_difference
from aligntune.findings import unit_of, verdict
from aligntune.identity import differences
from aligntune.report.compared import Paired, Score

PREDICTIONS = "predictions.parquet"
RESAMPLES = 40_000
"""Of all differences together, as far as `_resamples` allows: many runs take seconds."""
MOST_RESAMPLES = 20_000
"""Of one difference."""


@dataclass(frozen=True)
class Evaluation:
    """One run's, as it was written."""

    folder: Path
    conditions: Mapping[str, Any]
    intervals: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    identity: Mapping[str, Any]
    """Of the stage that made it."""
    tokens: str
    """Digest of the model's."""

    def instrument(self, metric: str) -> dict[str, Any]:
        """By what a metric was measured."""
        return instrument(metric, self.identity, self.tokens)

    def scored_by_row(self, metric: str) -> bool:
        """Not where it is of the mean of another one, as perplexity is."""
        import pyarrow.parquet as pq

        return metric in pq.read_schema(self.folder / PREDICTIONS).names

    def column(self, metric: str) -> NDArray[np.float64]:
        """Its score by row, (N,), NaN where there is none."""
        scores: NDArray[np.float64] = self._read(metric).to_numpy().astype(np.float64)
        return scores

    def prompts(self) -> NDArray[np.int64]:
        """The number of each row's prompt, (N,): rows that ask the same have the same."""
        known: dict[str, int] = {}
        asked = map(json.dumps, self._read("prompt").to_pylist())
        return np.array([known.setdefault(prompt, len(known)) for prompt in asked])

    def _read(self, column: str) -> Any:
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / PREDICTIONS, columns=[column])[column]


@dataclass(frozen=True)
class Measures:
    scores: tuple[Score, ...]
    notes: tuple[str, ...]
    confidence: float
    tests: int


def evaluation(run: PastRun) -> Evaluation | None:
    """The evaluation of a run's result, where its files can be reached."""
    stage = run.evaluation
    if stage is None or stage.made is None:
        return None
    try:
        text = (stage.made.path / "evaluation.json").read_text(encoding="utf-8")
        found = json.loads(text)
        return Evaluation(
            stage.made.path, found["conditions"], found["intervals"], found["metrics"],
            stage.made.manifest.identity, found.get("tokens", ""),
        )  # fmt: skip
    except (OSError, ValueError, KeyError):
        return None


def measures(runs: Sequence[PastRun], letters: Sequence[str]) -> Measures:
    """Every metric of every run's result; paired with the first run's where both were measured on
    the same rows under the same conditions, with p-values corrected after Holm."""
    found = [evaluation(run) for run in runs]
    notes = _notes(runs, found, letters)
    intervals = next((one.intervals for one in found if one), {"confidence": 0.95, "seed": 42})
    scores = [score for number, one in enumerate(found) for score in _scores(number, one)]
    scores += [
        score
        for number, (run, one) in enumerate(zip(runs, found, strict=True))
        if one is None
        for score in _logged(number, run, scores)
    ]
    pairs = [(place, score) for place, score in enumerate(scores) if _can_pair(score, found)]
    how = {
        "confidence": float(intervals["confidence"]),
        "seed": int(intervals["seed"]),
        "resamples": _resamples(len(pairs), intervals),
    }
    for place, score in pairs:
        scores[place] = replace(score, paired=_paired(score, found, how))
    order = list(dict.fromkeys(score.metric for score in scores))
    scores.sort(key=lambda score: (order.index(score.metric), score.run))
    corrected, tests = _corrected(scores, how["confidence"])
    return Measures(corrected, notes, how["confidence"], tests)


def _resamples(tests: int, intervals: Mapping[str, Any]) -> int:
    """Fewer for each of many differences, but enough that the smallest p-value that so many can
    give is a fifth of the level after Holm's correction for all tests."""
    configured = int(intervals.get("resamples", 10_000))
    enough = math.ceil(10 * tests / (1 - float(intervals["confidence"])))
    return min(max(min(configured, RESAMPLES // max(tests, 1)), enough), MOST_RESAMPLES)


def _scores(number: int, found: Evaluation | None) -> list[Score]:
    if found is None:
        return []
    return [
        Score(
            metric, number, entry["mean"], entry["low"], entry["high"], entry["count"],
            entry["higher_is_better"], unit_of(metric, entry), bool(entry.get("diagnostic")),
        )
        for metric, entry in found.metrics.items()
    ]  # fmt: skip


def _logged(number: int, run: PastRun, others: Sequence[Score]) -> list[Score]:
    """What MLflow has of an evaluation whose files are out of reach."""
    metrics = run.evaluation.metrics if run.evaluation else {}
    known = {score.metric: score for score in others}
    return [
        Score(
            name, number, value, metrics[f"{name}/low"], metrics.get(f"{name}/high", math.nan),
            int(metrics.get(f"{name}/count", 0)),
            known[name].higher_is_better if name in known else True,
            known[name].unit if name in known else unit_of(name, {}),
            name in known and known[name].diagnostic,
        )
        for name, value in metrics.items()
        if f"{name}/low" in metrics
    ]  # fmt: skip


def _can_pair(score: Score, found: Sequence[Evaluation | None]) -> bool:
    first, this = found[0], found[score.run]
    return (
        score.run > 0
        and first is not None
        and this is not None
        and this.conditions == first.conditions
        and score.metric in first.metrics
        and this.instrument(score.metric) == first.instrument(score.metric)
        and all(one.scored_by_row(score.metric) for one in (first, this))
    )


def _paired(
    score: Score, found: Sequence[Evaluation | None], how: Mapping[str, Any]
) -> Paired | None:
    """None where the scores by row are not what the mean was made of, or no row has both."""
    first, this = found[0], found[score.run]
    assert first is not None
    assert this is not None
    metric, prompts = score.metric, first.prompts()
    base, own = first.column(metric), this.column(metric)
    means = (first.metrics[metric]["mean"], base), (score.mean, own)
    if not all(_is_mean(mean, column, prompts) for mean, column in means):
        return None
    both = np.isfinite(base) & np.isfinite(own)
    if not both.any():
        return None
    change = paired_difference(
        mean_by_prompt(own[both], prompts[both]),
        mean_by_prompt(base[both], prompts[both]),
        higher_is_better=score.higher_is_better,
        **how,
    )
    return Paired(
        change.difference, change.low, change.high, change.p_value, change.p_value,
        change.wins, change.ties, change.losses,
        verdict(change.verdict, {"diagnostic": score.diagnostic}),
    )  # fmt: skip


def _is_mean(mean: float, scores: NDArray[np.float64], prompts: NDArray[np.int64]) -> bool:
    """Whether `mean` is one of these scores, as it is not where it is of e to their power."""
    there = np.isfinite(scores)
    if not there.any():
        return False
    means = scores[there].mean(), mean_by_prompt(scores[there], prompts[there]).mean()
    return any(math.isclose(float(one), mean, rel_tol=1e-6, abs_tol=1e-9) for one in means)


def _corrected(scores: Sequence[Score], confidence: float) -> tuple[tuple[Score, ...], int]:
    """`scores` with adjusted p-values and the verdicts that they allow, and how many there are."""
    places = [place for place, score in enumerate(scores) if score.paired and not score.diagnostic]
    adjusted = holm([_p_value(scores[place]) for place in places])
    made = list(scores)
    for place, p_value in zip(places, adjusted, strict=True):
        paired = scores[place].paired
        assert paired is not None
        told = paired.verdict if p_value <= 1 - confidence else "inconclusive"
        changed = replace(paired, adjusted=p_value, verdict=told)
        made[place] = replace(scores[place], paired=changed)
    return tuple(made), len(places)


def _p_value(score: Score) -> float:
    assert score.paired is not None
    return score.paired.p_value


def _notes(
    runs: Sequence[PastRun], found: Sequence[Evaluation | None], letters: Sequence[str]
) -> tuple[str, ...]:
    """Why what is not paired is not."""
    notes = []
    for number, (run, one) in enumerate(zip(runs, found, strict=True)):
        name = f"{letters[number]} ({run.name})"
        if one is None:
            place = (
                "there is no evaluation of its result"
                if run.folder
                else "only MLflow has its scores"
            )
            notes.append(f"{name} is not compared by prompt: {place}.")
        elif number and found[0] and one.conditions != found[0].conditions:
            differs = _apart(found[0].conditions, one.conditions)
            notes.append(
                f"{name} is not compared by prompt with {letters[0]}: it was evaluated under "
                f"other conditions ({differs})."
            )
        elif number and found[0]:
            for fields, metrics in _otherwise(found[0], one).items():
                notes.append(
                    f"{name} is not compared with {letters[0]} by {', '.join(metrics)}: it is "
                    f"measured otherwise there ({fields})."
                )
    return tuple(notes)


def _otherwise(first: Evaluation, other: Evaluation) -> dict[str, list[str]]:
    """What differs -> the metrics of both that are not measured alike because of it."""
    found: dict[str, list[str]] = {}
    for metric in first.metrics:
        if metric in other.metrics:
            fields = differences(first.instrument(metric), other.instrument(metric))
            if fields:
                found.setdefault(", ".join(fields), []).append(metric)
    return found


def _apart(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    names = [name for name in first.keys() | other.keys() if first.get(name) != other.get(name)]
    return "; ".join(
        f"{name} {_brief(other.get(name))} instead of {_brief(first.get(name))}"
        for name in sorted(names)
    )


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:12] if len(text) > 40 else text
