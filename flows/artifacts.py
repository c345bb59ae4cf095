"""What a flow run shows in Prefect: each stage's numbers and answers, and the run's result."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.exceptions import PrefectException

from aligntune.artifacts import Artifact
from aligntune.report.words import inline
from aligntune.run import Done
from aligntune.session import Session
from aligntune.show import key_metrics

LOG = logging.getLogger("aligntune.flow")

PATIENCE = 15.0
"""Seconds that Prefect may take for an artifact; its client alone would try for minutes. Half as
many after each that it did not take: a server that is gone must not cost every stage."""
SHORT_PATIENCE = 1.0
"""No fewer than that."""
SAMPLES = 5
"""Answers shown per evaluation, at most."""
LONGEST = 1_000
"""Characters of a prompt or an answer that are shown."""


async def record_stage(session: Session, done: Done) -> None:
    """A Markdown artifact with the stage's metrics, and its answers if it is an evaluation."""
    text = stage_markdown(
        done,
        session.artifact(done.label),
        session.run_url(done.mlflow_run),
        samples=min(session.plan.config.evaluation.sample_count, SAMPLES),
    )
    await kept(
        acreate_markdown_artifact(text, key=key(session, done.label), description=done.artifact)
    )


async def record_run(session: Session) -> None:
    """A table of all stages."""
    rows = [
        {
            "stage": label,
            "artifact": done.artifact,
            "state": "reused" if done.reused else "run",
            "seconds": round(done.seconds, 1),
            "metrics": key_metrics(session.artifact(label)),
            "MLflow run": done.mlflow_run or "",
        }
        for label, done in session.done.items()
    ]
    await kept(
        acreate_table_artifact(rows, key=key(session, "stages"), description=str(session.report))
    )


async def record_page(text: str, *, key: str, description: str) -> None:
    """A Markdown artifact that is about the whole run."""
    await kept(acreate_markdown_artifact(text, key=key, description=description))


async def kept(creation: Awaitable[object]) -> None:
    """A failure to show something neither fails nor holds up a stage that is done."""
    try:
        async with asyncio.timeout(max(SHORT_PATIENCE, PATIENCE * 0.5**_prefect.failures)):
            await creation
        _prefect.failures = 0
    except (httpx.HTTPError, PrefectException, TimeoutError) as error:
        _prefect.failures += 1
        LOG.warning("Prefect did not take an artifact: %s", repr(error))


@dataclass
class _Prefect:
    failures: int = 0
    """The last so many artifacts did not arrive."""


_prefect = _Prefect()


def away() -> bool:
    """Whether Prefect did not take what it was last given."""
    return _prefect.failures > 0


def key(session: Session, label: str) -> str:
    """An artifact key: its versions over time are one page in Prefect."""
    return page_key(session.folder.name, label)


def page_key(run: str, label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{run}-{label}".lower()).strip("-")


def stage_markdown(done: Done, artifact: Artifact, url: str | None, *, samples: int) -> str:
    """One stage: where it is, what it measured, and `samples` answers of an evaluation."""
    manifest = artifact.manifest
    state = "reused" if done.reused else f"built in {manifest.seconds:.1f} s"
    lines = [f"# {done.label}", "", f"`{done.artifact}`, {state}, finished {manifest.finished}", ""]
    if done.mlflow_run:
        shown = f"`{done.mlflow_run}`"
        lines += [f"MLflow run: [{shown}]({url})" if url else f"MLflow run: {shown}", ""]
    lines += [f"Files: `{artifact.path}`", ""]
    if manifest.metrics:
        lines += ["| metric | value |", "| --- | ---: |"]
        lines += [f"| {inline(name)} | {value:.6g} |" for name, value in manifest.metrics.items()]
        lines.append("")
    if manifest.kind == "evaluate":
        lines += _samples(artifact, samples)
    return "\n".join(lines)


def _samples(artifact: Artifact, count: int) -> Iterator[str]:
    import pyarrow.parquet as pq

    columns = ["prompt", "reference", "completion"]
    table = pq.read_table(artifact.path / "predictions.parquet", columns=columns)
    rows = [row for row in table.slice(0, count).to_pylist() if row["completion"] is not None]
    for number, row in enumerate(rows, 1):
        yield f"## Sample {number}"
        yield ""
        yield from _fenced("prompt", _prompt(row["prompt"]))
        yield from _fenced("answer", row["completion"])
        if row["reference"] is not None:
            yield from _fenced("reference", row["reference"])


def _prompt(messages: list[Mapping[str, Any]]) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _fenced(title: str, text: str) -> list[str]:
    """Someone's text as a code block that it cannot end by itself."""
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"
    runs = re.findall(r"`{3,}", shown)
    fence = "`" * (max(map(len, runs), default=2) + 1)
    return [f"{title}:", "", f"{fence}text", shown, fence, ""]
