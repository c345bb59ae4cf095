"""What the artifacts of a run say, as the tables of its report. Reads files only."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aligntune.artifacts import Artifact
from aligntune.data.report import DataReport, read
from aligntune.journal import FILE, SAMPLES, complete_lines, curves
from aligntune.report.charts import CURVES
from aligntune.report.types import (
    Curve,
    Difference,
    GateRow,
    LineageRow,
    RewardRow,
    TrainingSample,
    Verdict,
    Versus,
)

Labelled = Iterable[tuple[str, Artifact]]
"""A stage's label and what it made, in the order of the run."""

REWARD = "train/rewards/"
SOURCE_SAMPLES = 2
"""Rows of a source that are shown in the run's own report."""
SAMPLED_STEPS = 3
"""The first and the last steps at which a model in training was looked at."""


def charted(artifacts: Labelled) -> Iterator[Curve]:
    """Curves worth a chart: CURVES in their order, and then each reward's mean."""
    for label, artifact in artifacts:
        found = curves(artifact.path / FILE, lambda name: name in CURVES or _reward(name) != "")
        order = [name for name in CURVES if name in found]
        for name in order + [name for name in found if name not in order]:
            steps, values = found[name]
            yield Curve(label, name, steps, values)


def _reward(metric: str) -> str:
    """The reward that a metric is the mean of; empty for others."""
    name = metric.removeprefix(REWARD).removesuffix("/mean")
    return name if metric == f"{REWARD}{name}/mean" else ""


def rewards(artifacts: Labelled) -> Iterator[RewardRow]:
    """What each reward was in training."""
    for label, artifact in artifacts:
        found = curves(artifact.path / FILE, lambda metric: metric.startswith(REWARD))
        for metric, (steps, values) in found.items():
            if name := _reward(metric):
                spread = found.get(f"{REWARD}{name}/std", ((), (0.0,)))[1][-1]
                yield RewardRow(
                    label, name, _weight(artifact, name), values[0], values[-1],
                    min(values), max(values), spread, len(steps),
                )  # fmt: skip


def _weight(artifact: Artifact, name: str) -> float | None:
    configured = artifact.manifest.identity["config"].get("rewards") or ()
    found = [entry["weight"] for entry in configured if entry["reward_type"] == name]
    return float(found[0]) if len(found) == 1 else None


def data_reports(artifacts: Labelled) -> Iterator[tuple[str, DataReport]]:
    """The report of each data stage, with a few samples of each source."""
    for label, artifact in artifacts:
        if artifact.manifest.kind == "data" and (artifact.path / "report.json").is_file():
            report = read(artifact.path)
            few = tuple(
                replace(source, samples=source.samples[:SOURCE_SAMPLES])
                for source in report.sources
            )
            yield label, replace(report, sources=few)


def versus(evaluations: Labelled) -> list[Versus]:
    """Every model against every one that was there before it, metric by metric."""
    found = [
        Versus(
            metric, label, difference(change, other, entry), change["p_value"],
            change["wins"], change["ties"], change["losses"], unit_of(metric, entry),
            change.get("detectable"),
        )
        for label, artifact in evaluations
        for metric, entry in artifact.read("evaluation.json")["metrics"].items()
        for other, change in entry["against"].items()
    ]  # fmt: skip
    order = list(dict.fromkeys(row.metric for row in found))
    return sorted(found, key=lambda row: order.index(row.metric))


def difference(found: Mapping[str, Any], other: str, entry: Mapping[str, Any]) -> Difference:
    """What an evaluation found against `other` for the metric of `entry`."""
    told = verdict(found["verdict"], entry)
    return Difference(found["difference"], found["low"], found["high"], told, other)


def verdict(found: Verdict, entry: Mapping[str, Any]) -> Verdict:
    """Of a diagnostic metric neither direction is good."""
    return "differs" if entry.get("diagnostic") and found != "inconclusive" else found


def unit_of(metric: str, found: Mapping[str, Any]) -> str:
    """`%` for shares of 1, or what is written after the number."""
    shares = ("exact_match", "preference_accuracy")
    return str(found.get("unit", "%" if metric in shares else ""))


def gates(artifacts: Labelled) -> Iterator[GateRow]:
    """Every test of the decision about the candidate, where one was made."""
    for _, artifact in artifacts:
        if artifact.manifest.kind == "decide":
            for test in artifact.read("decision.json")["tests"]:
                yield GateRow(
                    test["metric"], test["want"], test["threshold"], test["against"] or "",
                    test["found"], test["low"], test["high"], test["state"], test["unit"],
                    test["p_value"],
                )  # fmt: skip


def training_samples(artifacts: Labelled) -> Iterator[TrainingSample]:
    """Answers of models in training, at the first and the last steps that were looked at."""
    for label, artifact in artifacts:
        rows = [json.loads(line) for line in complete_lines(artifact.path / SAMPLES)]
        steps = sorted({row["step"] for row in rows})
        shown = {*steps[:1], *steps[-SAMPLED_STEPS + 1 :]}
        prompts: dict[str, dict[int, str]] = {}
        for row in rows:
            if row["step"] in shown:
                prompts.setdefault(row["prompt"], {})[row["step"]] = row["completion"]
        for prompt, answers in prompts.items():
            yield TrainingSample(label, prompt, answers)


def lineage(artifacts: Labelled, runs: Path, own: str) -> Iterator[LineageRow]:
    """For each stage what it was made from, what was made from it here, and which other runs
    below `runs` have it too."""
    pairs = list(artifacts)
    labels = {artifact.name: label for label, artifact in pairs}
    elsewhere = _runs_of(runs, own)
    for label, artifact in pairs:
        sources = {labels.get(name, name): None for name in artifact.manifest.inputs.values()}
        results = {
            other: None for other, made in pairs if artifact.name in made.manifest.inputs.values()
        }
        yield LineageRow(
            label, artifact.name, tuple(sources), tuple(results),
            tuple(sorted(elsewhere.get(artifact.name, ()))),
        )  # fmt: skip


def _runs_of(runs: Path, own: str) -> dict[str, list[str]]:
    """Artifact -> the other runs that have it."""
    found: dict[str, list[str]] = {}
    for plan in sorted(runs.glob("*/plan.json")):
        if plan.parent.name == own:
            continue
        try:
            names = [str(row["artifact"]) for row in json.loads(plan.read_text(encoding="utf-8"))]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for name in names:
            found.setdefault(name, []).append(plan.parent.name)
    return found
