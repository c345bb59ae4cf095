"""Running a plan: one stage at a time, whoever asks for it.

    with opened(plan(config), command) as session:
        for planned in session.plan.stages:
            session.add(execute(planned.stage, session.context, ...))

The CLI calls `execute` in its own process, a flow in a child process per training stage.
"""

import errno
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from aligntune.artifacts import (
    WORK,
    Artifact,
    Manifest,
    commit,
    find,
    lock,
    partial,
    write_atomic,
)
from aligntune.errors import AlignTuneError, Interrupted, ResourceError
from aligntune.plan import Stage, flat
from aligntune.stages import KINDS, Outcome, Progress, Work

if TYPE_CHECKING:
    from aligntune.track import Tracker

LOG = logging.getLogger(__name__)

ENVIRONMENT = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "mlflow")


@dataclass(frozen=True)
class Context:
    """What every stage of a pipeline run shares. Strings only: it is handed to child processes."""

    root: str
    tracking_uri: str
    parent_run: str | None
    """The pipeline's MLflow run; None where MLflow could not be reached."""

    @property
    def stages(self) -> Path:
        return Path(self.root) / "stages"


@dataclass(frozen=True)
class Done:
    """A stage that has its artifact."""

    label: str
    artifact: str
    """`<kind>-<key>`."""
    reused: bool
    seconds: float
    mlflow_run: str | None


def execute(
    stage: Stage, context: Context, progress: Progress, stopping: Callable[[], bool]
) -> Done:
    """The artifact of `stage`: reused if it exists, else built here and committed.

    If another process is building it, waits for that one and reuses the result.

    Raises:
        AlignTuneError: the stage failed; what it had finished is kept for the next attempt.
    """
    began = time.monotonic()
    if found := find(context.stages, stage.kind, stage.key):
        return _reused(stage, context, found, began)

    waiting = _Waiting(stage, stopping)
    with lock(context.stages, stage.kind, stage.key, waiting):
        if found := find(context.stages, stage.kind, stage.key):
            return _reused(stage, context, found, began)
        return _build(stage, context, progress, stopping, began)


class _Waiting:
    """Says once that another process is at it, and gives up when asked to stop."""

    def __init__(self, stage: Stage, stopping: Callable[[], bool]) -> None:
        self._stage = stage
        self._stopping = stopping
        self._said = False

    def __call__(self) -> None:
        if self._stopping():
            raise Interrupted(f"{self._stage.label}: stopped while another process builds it")
        if not self._said:
            LOG.warning("%s: another process is at it; waiting", self._stage.label)
        self._said = True


def _reused(stage: Stage, context: Context, artifact: Artifact, began: float) -> Done:
    from aligntune.track import reused_stage

    run_id = reused_stage(_tracker(context), stage.label, artifact)
    return Done(stage.label, artifact.name, True, time.monotonic() - began, run_id)


def _build(
    stage: Stage,
    context: Context,
    progress: Progress,
    stopping: Callable[[], bool],
    began: float,
) -> Done:
    from aligntune.track import finish_stage, forwarding, stage_run

    if stopping():
        raise Interrupted(f"stopped before {stage.label}; the same command continues")
    tracker = _tracker(context)
    out = partial(context.stages, stage.kind, stage.key)
    params = flat(stage.identity["config"]) | {"key": stage.key}
    with stage_run(tracker, stage.label, stage.name, params, out / WORK) as run_id, _named(stage):
        inputs = {role: _input(context, stage, name) for role, name in stage.inputs.items()}
        work = Work(
            key=stage.key,
            config=stage.config,
            sources=stage.sources,
            inputs=inputs,
            out=out,
            root=Path(context.root),
            tracking_uri=context.tracking_uri,
            progress=progress,
            stopping=stopping,
        )
        started, earlier = _now(), _earlier_seconds(out)
        try:
            with forwarding(tracker, run_id, out, out / WORK):
                outcome = KINDS[stage.kind].run(work)
        finally:
            seconds = earlier + time.monotonic() - began
            _remember_seconds(out, seconds)
        artifact = commit(out, _manifest(stage, outcome, started, seconds, run_id))
    if run_id:
        data = {role: made for role, made in inputs.items() if made.manifest.kind == "data"}
        own = {stage.label: artifact} if stage.kind == "data" else {}
        finish_stage(tracker, run_id, artifact, data | own)
    return Done(stage.label, artifact.name, False, seconds, run_id)


@contextmanager
def _named(stage: Stage) -> Iterator[None]:
    """Every error with its stage's name; memory and disk that ran out as errors of ours."""
    try:
        yield
    except AlignTuneError as error:
        if str(error).startswith(f"{stage.label}:"):
            raise
        raise type(error)(f"{stage.label}: {error}") from error
    except MemoryError as error:
        raise ResourceError(
            f"{stage.label}: out of memory; lower train.per_device_batch_size or "
            "train.max_length, or set model.gradient_checkpointing: true"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise ResourceError(
            f"{stage.label}: {error}; make room or give access, then run the same command again"
        ) from error


def _input(context: Context, stage: Stage, name: str) -> Artifact:
    kind, _, key = name.rpartition("-")
    artifact = find(context.stages, kind, key)
    if artifact is None:
        raise AlignTuneError(f"{stage.label}: its input {name} is missing or damaged; run again")
    return artifact


def _manifest(
    stage: Stage, outcome: Outcome, started: str, seconds: float, run_id: str | None
) -> Manifest:
    return Manifest(
        kind=stage.kind,
        key=stage.key,
        identity=dict(stage.identity),
        inputs=dict(stage.inputs),
        environment=environment(),
        metrics=dict(outcome.metrics),
        facts=dict(outcome.facts) | {"mlflow_run_id": run_id},
        started=started,
        finished=_now(),
        seconds=seconds,
        files={},
    )


def environment() -> dict[str, str]:
    """Exact versions of what computes, for the manifest and the model card."""
    import platform

    versions = {name: version(name) for name in ENVIRONMENT}
    own = {"aligntune": version("aligntune-pipeline"), "python": platform.python_version()}
    return own | versions | _commit()


def _commit() -> dict[str, str]:
    """The commit that this package was imported from, if that is a git checkout."""
    import subprocess

    checkout = Path(__file__).parent.parent
    if not (checkout / ".git").exists():
        return {}
    found = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {"git": found.stdout.strip()} if found.returncode == 0 else {}


def _earlier_seconds(out: Path) -> float:
    spent = out / WORK / "seconds"
    return float(spent.read_text()) if spent.exists() else 0.0


def _remember_seconds(out: Path, seconds: float) -> None:
    if (out / WORK).is_dir():
        write_atomic(out / WORK / "seconds", f"{seconds:.3f}")


def _tracker(context: Context) -> "Tracker":
    from aligntune.track import Tracker

    return Tracker(context.tracking_uri, Path(context.root), context.parent_run)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def to_json(stage: Stage, context: Context) -> str:
    """A stage and its context for a child process."""
    record = asdict(stage) | {"config": stage.config.model_dump(mode="json")}
    return json.dumps({"stage": record, "context": asdict(context)}, indent=2)


def from_json(text: str) -> tuple[Stage, Context]:
    record: Mapping[str, dict[str, object]] = json.loads(text)
    parts = dict(record["stage"])
    config = KINDS[str(parts["kind"])].config.model_validate(parts.pop("config"))
    return Stage(config=config, **parts), Context(**record["context"])  # type: ignore[arg-type]
