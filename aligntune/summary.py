"""A finished run as a report: what its artifacts say, put together. Reads files only."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from aligntune import findings
from aligntune.artifacts import Artifact
from aligntune.config.dump import dump
from aligntune.data.rows import head
from aligntune.report.page import write
from aligntune.report.types import (
    Answer,
    DataRow,
    EvaluationRow,
    Fact,
    Link,
    RunReport,
    SampleRow,
    StageRow,
)
from aligntune.session import Session


def write_report(session: Session, error: str = "") -> None:
    """Write the run's page; of one that `error` stopped, with what was finished."""
    write(_report(session, error), session.report)


def headline_metrics(session: Session) -> dict[str, float]:
    """What each model scored, for the pipeline's own MLflow run: `dpo/exact_match`."""
    found: dict[str, float] = {}
    for label, artifact in _evaluations(session):
        for name, value in artifact.manifest.metrics.items():
            found[f"{label}/{name}"] = value
    return found


def settled(session: Session) -> dict[str, Any] | None:
    """What the run decided about its candidate, and whether that is the champion now; None where
    it does not promote."""
    if "promote" not in session.done:
        return None
    facts = session.artifact("promote").manifest.facts
    found = {name: facts[name] for name in ("verdict", "why", "version", "promoted")}
    return found if (now := _since(session)) is None else found | {"promoted": now}


def _since(session: Session) -> bool | None:
    """Whether the candidate is the champion now, of a decision that was carried out earlier: others
    were promoted or rolled back since. None where this run carried it out, or nobody knows."""
    return session.plan.is_champion if session.done["promote"].reused else None


def aliases(session: Session) -> dict[str, str]:
    """Which version holds which alias by what the run did."""
    if "promote" not in session.done:
        return {}
    facts = session.artifact("promote").manifest.facts
    held: dict[str, str] = dict(facts["aliases"])
    if (now := _since(session)) is not None:
        held.pop("champion", None)
        held |= {"champion": facts["version"]} if now else {}
    return held


def decision(session: Session) -> str | None:
    """The decision about the candidate and why, in one sentence."""
    if not (found := settled(session)):
        return None
    lost = session.artifact("promote").manifest.facts["promoted"] and not found["promoted"]
    became = {
        (True, "promote"): "became the champion",
        (False, "promote"): "passed, and was the champion: another is now"
        if lost
        else "passed and waits for `aligntune promote`",
        (False, "reject"): "was rejected",
        (False, "inconclusive"): "was not promoted",
    }.get((found["promoted"], found["verdict"]), "is the champion already")
    return f"candidate v{found['version']} {became}: {found['why']}"


def _report(session: Session, error: str) -> RunReport:
    plan, now = session.plan, datetime.now(UTC)
    made = list(_artifacts(session))
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
        curves=tuple(findings.charted(made)),
        data=tuple(_data(session)),
        lineage=tuple(_lineage(session)),
        links=tuple(_links(session)),
        confidence=plan.config.evaluation.confidence,
        versus=tuple(findings.versus(_evaluations(session))),
        gates=tuple(findings.gates(made)),
        rewards=tuple(findings.rewards(made)),
        training_samples=tuple(findings.training_samples(made)),
        data_reports=tuple(findings.data_reports(made)),
        family=tuple(findings.lineage(made, session.folder.parent, session.folder.name)),
        error=error,
        decision=decision(session) or "",
    )


def _artifacts(session: Session) -> Iterator[tuple[str, Artifact]]:
    """What the run has so far, in the order of its stages."""
    for planned in session.plan.stages:
        if planned.stage.label in session.done:
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
        for metric, found in artifact.read("evaluation.json")["metrics"].items():
            base = found["against"].get("base")
            yield EvaluationRow(
                metric=metric,
                model=label,
                mean=found["mean"],
                low=found["low"],
                high=found["high"],
                count=found["count"],
                higher_is_better=found["higher_is_better"],
                unit=findings.unit_of(metric, found),
                headline=not found.get("diagnostic", False),
                difference=findings.difference(base, "base", found) if base else None,
            )


def _samples(session: Session, count: int) -> Iterator[SampleRow]:
    tables = {
        label: head(artifact.path / "predictions.parquet", count)
        for label, artifact in _evaluations(session)
    }
    for rows in zip(*tables.values(), strict=True) if tables else ():
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
    if "model" in session.done:
        model = session.artifact("model").manifest
        yield Fact("base model", str(model.facts["source"]))
        yield Fact("base model digest", str(model.facts["fingerprint"]))
    promoted = aliases(session)
    for stage in ("register-reward", "register"):
        if stage in session.done:
            moved = promoted if stage == "register" else {}
            yield from _registered(session.artifact(stage).manifest.facts, moved)
    last = session.artifact(list(session.done)[-1]).manifest if session.done else None
    for name, exact in last.environment.items() if last else ():
        yield Fact(name, exact)


def _registered(facts: Mapping[str, Any], moved: Mapping[str, str]) -> Iterator[Fact]:
    aliases = {**facts["aliases"], **moved}
    for label, version in facts["versions"].items():
        held = [alias for alias, holder in aliases.items() if holder == version]
        note = f" ({', '.join(held)})" if held else ""
        yield Fact(f"registered {label}", f"{facts['registered_model']} v{version}{note}")


def _links(session: Session) -> Iterator[Link]:
    if url := session.run_url(session.mlflow_run):
        yield Link("MLflow run", url)
    if "push" in session.done:
        yield Link("model on the hub", str(session.artifact("push").manifest.facts["url"]))
