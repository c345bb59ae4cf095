"""A finished run as a report: what its artifacts say, put together. Reads files only."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from aligntune.artifacts import Artifact
from aligntune.config.dump import dump
from aligntune.journal import FILE, read
from aligntune.report.page import write
from aligntune.report.types import (
    Answer,
    Curve,
    DataRow,
    Difference,
    EvaluationRow,
    Fact,
    Link,
    RunReport,
    SampleRow,
    StageRow,
)
from aligntune.session import Session

CURVES = (
    "train/loss",
    "eval/loss",
    "train/mean_token_accuracy",
    "train/rewards/accuracies",
    "train/rewards/margins",
    "train/grad_norm",
)
"""Training metrics that are worth a chart, in this order; MLflow has all of them."""


def write_report(session: Session) -> None:
    write(_report(session), session.report)


def headline_metrics(session: Session) -> dict[str, float]:
    """What each model scored, for the pipeline's own MLflow run: `dpo/exact_match`."""
    found: dict[str, float] = {}
    for label, artifact in _evaluations(session):
        for name, value in artifact.manifest.metrics.items():
            found[f"{label}/{name}"] = value
    return found


def _report(session: Session) -> RunReport:
    plan, now = session.plan, datetime.now(UTC)
    return RunReport(
        title=session.folder.name,
        command=session.command,
        config_yaml=dump(plan.config),
        started=datetime.fromtimestamp(now.timestamp() - session.seconds, UTC).isoformat(
            " ", "seconds"
        ),
        finished=now.isoformat(" ", "seconds"),
        seconds=session.seconds,
        stages=tuple(_stages(session)),
        evaluations=tuple(_evaluation_rows(session)),
        samples=tuple(_samples(session, plan.config.evaluation.sample_count)),
        curves=tuple(_curves(session)),
        data=tuple(_data(session)),
        lineage=tuple(_lineage(session)),
        links=tuple(_links(session)),
        confidence=plan.config.evaluation.confidence,
    )


def _artifacts(session: Session) -> Iterator[tuple[str, Artifact]]:
    for planned in session.plan.stages:
        yield planned.stage.label, session.artifact(planned.stage.label)


def _evaluations(session: Session) -> Iterator[tuple[str, Artifact]]:
    """Model label -> its evaluation, in the order of training."""
    for label, artifact in _artifacts(session):
        if artifact.manifest.kind == "evaluate":
            yield label.removeprefix("evaluate-"), artifact


def _stages(session: Session) -> Iterator[StageRow]:
    for label, artifact in _artifacts(session):
        done = session.done[label]
        yield StageRow(
            label=label,
            kind=artifact.manifest.kind,
            key=artifact.manifest.key,
            state="reused" if done.reused else "run",
            why=session.plan[label].why,
            seconds=artifact.manifest.seconds,
            metrics=artifact.manifest.metrics,
            mlflow_url=session.run_url(done.mlflow_run),
        )


def _evaluation_rows(session: Session) -> Iterator[EvaluationRow]:
    for label, artifact in _evaluations(session):
        document = json.loads((artifact.path / "evaluation.json").read_text(encoding="utf-8"))
        for metric, found in document["metrics"].items():
            yield EvaluationRow(
                metric=metric,
                model=label,
                mean=found["mean"],
                low=found["low"],
                high=found["high"],
                count=found["count"],
                higher_is_better=found["higher_is_better"],
                unit="" if metric == "nll" else "%",
                difference=_difference(found["against"].get("base")),
            )


def _difference(found: dict[str, Any] | None) -> Difference | None:
    if found is None:
        return None
    return Difference(found["difference"], found["low"], found["high"], found["verdict"])


def _samples(session: Session, count: int) -> Iterator[SampleRow]:
    import pyarrow.parquet as pq

    tables = {
        label: pq.read_table(artifact.path / "predictions.parquet").slice(0, count).to_pylist()
        for label, artifact in _evaluations(session)
    }
    for rows in zip(*tables.values(), strict=True):
        answers = {
            label: Answer(row["completion"], _correct(row))
            for label, row in zip(tables, rows, strict=True)
            if row["completion"] is not None
        }
        if answers:
            yield SampleRow(rows[0]["prompt"], answers, rows[0]["reference"])


def _correct(row: dict[str, Any]) -> bool | None:
    score = row.get("exact_match")
    return None if score is None else score == 1


def _curves(session: Session) -> Iterator[Curve]:
    for label, artifact in _artifacts(session):
        rows = list(read(artifact.path / FILE))
        for name in CURVES:
            points = [(row.step, row.metrics[name]) for row in rows if name in row.metrics]
            if points:
                steps, values = zip(*points, strict=True)
                yield Curve(label, name, steps, values)


def _data(session: Session) -> Iterator[DataRow]:
    for label, artifact in _artifacts(session):
        if artifact.manifest.kind == "data":
            for split, digest in artifact.manifest.facts["digests"].items():
                rows = int(artifact.manifest.metrics[f"rows_{split}"])
                page = f"stages/{label}/report.html"
                yield DataRow(label, split, rows, digest, _dropped(artifact), page)


def _dropped(artifact: Artifact) -> str:
    """Why rows are not there."""
    from aligntune.data.report import CAUSES

    counts = {cause: int(artifact.manifest.metrics[cause]) for cause in CAUSES}
    told = ", ".join(f"{count:,} {cause}" for cause, count in counts.items() if count)
    return f"{told.replace('_', ' ')} dropped" if told else ""


def _lineage(session: Session) -> Iterator[Fact]:
    model = session.artifact("model").manifest
    yield Fact("base model", str(model.facts["source"]))
    yield Fact("base model digest", str(model.facts["fingerprint"]))
    registered = session.artifact("register").manifest.facts
    for label, version in registered["versions"].items():
        held = [alias for alias, holder in registered["aliases"].items() if holder == version]
        note = f" ({', '.join(held)})" if held else ""
        yield Fact(f"registered {label}", f"{registered['registered_model']} v{version}{note}")
    for name, exact in session.artifact(session.final).manifest.environment.items():
        yield Fact(name, exact)


def _links(session: Session) -> Iterator[Link]:
    if url := session.run_url(session.mlflow_run):
        yield Link("MLflow run", url)
    if "push" in session.done:
        yield Link("model on the hub", str(session.artifact("push").manifest.facts["url"]))
