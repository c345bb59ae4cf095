"""Running a plan: one stage at a time, whoever asks for it.

    with opened(plan(config), command) as session:
        for planned in session.plan.stages:
            session.add(execute(planned.stage, session.context, ...))

The CLI calls `execute` in its own process, a flow in a child process per training stage.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aligntune.artifacts import (
    WORK,
    Artifact,
    Manifest,
    commit,
    committed,
    find,
    find_named,
    key_of,
    lock,
    partial,
    timestamp,
    write_atomic,
)
from aligntune.errors import AlignTuneError, Interrupted, ResourceError, no_room, reason
from aligntune.heartbeat import Progress, beat
from aligntune.identity import flat
from aligntune.interrupt import heeding
from aligntune.outbox import PIPELINE, RUN, Outbox, Record, continued, new_record, now
from aligntune.paths import tracking_identity, tracking_uri
from aligntune.plan import Stage
from aligntune.provenance import environment, tags
from aligntune.stages import KINDS
from aligntune.work import Outcome, Work

LOG = logging.getLogger(__name__)
PATIENCE = 10.0
"""Seconds that a stage's end may wait for MLflow's id of its run, unless MLflow is away."""


@dataclass(frozen=True)
class Context:
    """What every stage of a pipeline run shares. Strings only: it is handed to child processes."""

    root: str
    tracking_uri: str = field(repr=False)  # may have a password in it
    run: str
    """The name of the pipeline run."""
    record: str | None
    """The pipeline run's record in the outbox; None where nobody empties that."""

    @property
    def stages(self) -> Path:
        return Path(self.root) / "stages"

    def log(self, label: str) -> Path:
        """What a stage's own process says goes there."""
        return Path(self.root) / "runs" / self.run / "logs" / f"{label}.txt"


@dataclass(frozen=True)
class Done:
    """A stage that has its artifact."""

    label: str
    artifact: str
    """`<kind>-<key>`."""
    reused: bool
    seconds: float
    record: str
    """The record of its run in the outbox."""
    mlflow_run: str | None
    """MLflow's id of that run, as far as it was known when the stage ended."""


def execute(
    stage: Stage, context: Context, progress: Progress, stopping: Callable[[], bool]
) -> Done:
    """The artifact of `stage`: reused if it exists, else built here and committed.

    If another process is building it, waits for that one and reuses the result.

    Raises:
        AlignTuneError: the stage failed; what it had finished is kept for the next attempt.
    """
    began = time.monotonic()
    with _named(stage, Path(context.root)), heeding(stopping):
        if found := find(context.stages, stage.kind, stage.key):
            return _reused(stage, context, found, began)
        waiting = _Waiting(stage, stopping)
        with lock(context.stages, stage.kind, stage.key, waiting):
            kind, key = stage.kind, stage.key
            found = find(context.stages, kind, key) or committed(context.stages, kind, key)
            if found:
                return _reused(stage, context, found, began)
            return _build(stage, context, progress, stopping, began)


class _Waiting:
    """Says once that another process is at it, and gives up when asked to stop."""

    def __init__(self, stage: Stage, stopping: Callable[[], bool]) -> None:
        self._stage = stage
        self._stopping = stopping
        self._said = False

    def __call__(self) -> None:
        beat()
        if self._stopping():
            raise Interrupted("stopped while another process builds it")
        if not self._said:
            LOG.warning("%s: another process is at it; waiting", self._stage.label)
        self._said = True


def _reused(stage: Stage, context: Context, artifact: Artifact, began: float) -> Done:
    """Tells MLflow of the reuse as a short run of its own, so that every pipeline run is complete
    by itself."""
    outbox, facts = Outbox(Path(context.root)), artifact.manifest.facts
    if context.record and facts.get(PIPELINE) == context.record:  # an earlier attempt at this run
        seconds = time.monotonic() - began
        known = facts.get("mlflow_run_id")
        return Done(stage.label, artifact.name, True, seconds, str(facts[RUN]), known)
    ended = {"reused": True, "status": "FINISHED", "ended": now()}
    if context.record:  # each attempt at this run tells of one and the same reuse
        ended["id"] = key_of({"run": context.record, "stage": stage.label, "made": stage.name})
    record = _record(stage, context).model_copy(update=ended)
    with outbox.held(record.id):  # or it would be tidied away before it is whole
        outbox.write(record)
    seconds = time.monotonic() - began
    return Done(stage.label, artifact.name, True, seconds, record.id, outbox.run_id(record.id))


def _build(
    stage: Stage,
    context: Context,
    progress: Progress,
    stopping: Callable[[], bool],
    began: float,
) -> Done:
    if stopping():
        raise Interrupted("stopped before it began; the same command continues")
    out, outbox = partial(context.stages, stage.kind, stage.key), Outbox(Path(context.root))
    record = continued(outbox, out / WORK, _record(stage, context))
    with outbox.owned(record):
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
            identity=stage.identity,
        )
        started, earlier = timestamp(), _earlier_seconds(out)
        try:
            outcome = KINDS[stage.kind].run(work)
        finally:
            seconds = earlier + time.monotonic() - began
            _remember_seconds(out, seconds)
        run_id = outbox.run_id(record.id, PATIENCE if context.record else 0)
        facts = {RUN: record.id, PIPELINE: context.record, "mlflow_run_id": run_id}
        artifact = commit(out, _manifest(stage, outcome, started, seconds, facts))
    return Done(stage.label, artifact.name, False, seconds, record.id, run_id)


def _record(stage: Stage, context: Context) -> Record:
    """What MLflow has to know of the stage from its start on."""
    made = f"Stage `{stage.label}` of `{context.run}`: `{stage.name}`"
    read = "".join(f"\n- {role}: `{name}`" for role, name in stage.inputs.items())
    note = f"{made}, from{read}" if read else made
    return new_record(
        role="stage",
        name=stage.label,
        store=tracking_identity(),
        parent=context.record,
        artifact=stage.name,
        inputs=dict(stage.inputs),
        params=flat(stage.identity["config"]) | {"key": stage.key},
        tags=tags()
        | {
            "aligntune.stage": stage.label,
            "aligntune.kind": stage.kind,
            "aligntune.run": context.run,
            "mlflow.note.content": f"{note}\n\nIts directory: `{context.stages / stage.name}`",
        },
    )


@contextmanager
def _named(stage: Stage, root: Path) -> Iterator[None]:
    """Every error with its stage's name; memory and disk that ran out as errors of ours."""
    try:
        yield
    except AlignTuneError as error:
        if str(error).startswith(f"{stage.label}:"):
            raise
        raise type(error)(f"{stage.label}: {error}") from error
    except SystemExit as error:  # of a library, or a model's own code
        raise AlignTuneError(
            f"{stage.label}: something that it ran called exit({error.code!r}), which a stage "
            "must not; look for it in the code that the config names"
        ) from error
    except MemoryError as error:
        raise ResourceError(
            f"{stage.label}: out of memory; lower train.per_device_batch_size or "
            "train.max_length, or set model.gradient_checkpointing: true"
        ) from error
    except Exception as error:
        if not no_room(error):
            raise
        raise ResourceError(
            f"{stage.label}: {reason(error)}{_free(root)}; make room or give access, then run the "
            "same command again"
        ) from error


def _free(root: Path) -> str:
    """How much room there is, for a sentence; nothing where the directory could not be made."""
    try:
        return f", with {shutil.disk_usage(root).free // 2**20} MB free in {root}"
    except OSError:
        return ""


def _input(context: Context, stage: Stage, name: str) -> Artifact:
    artifact = find_named(context.stages, name)
    if artifact is None:
        raise AlignTuneError(f"{stage.label}: its input {name} is missing or damaged; run again")
    return artifact


def _manifest(
    stage: Stage, outcome: Outcome, started: str, seconds: float, facts: Mapping[str, object]
) -> Manifest:
    return Manifest(
        kind=stage.kind,
        key=stage.key,
        identity=dict(stage.identity),
        inputs=dict(stage.inputs),
        environment=environment(),
        metrics=dict(outcome.metrics),
        facts={**outcome.facts, **facts},
        started=started,
        finished=timestamp(),
        seconds=seconds,
        files={},
    )


def _earlier_seconds(out: Path) -> float:
    spent = out / WORK / "seconds"
    return float(spent.read_text()) if spent.exists() else 0.0


def _remember_seconds(out: Path, seconds: float) -> None:
    if (out / WORK).is_dir():
        write_atomic(out / WORK / "seconds", f"{seconds:.3f}")


def to_json(stage: Stage, context: Context) -> str:
    """A stage and its context for a child process."""
    record = asdict(stage) | {"config": stage.config.model_dump(mode="json")}
    shared = asdict(context)
    del shared["tracking_uri"]  # a password in it would be on the disk; the child has the variable
    return json.dumps({"stage": record, "context": shared}, indent=2)


def from_json(text: str) -> tuple[Stage, Context]:
    record: Mapping[str, dict[str, object]] = json.loads(text)
    parts = dict(record["stage"])
    config = KINDS[str(parts["kind"])].config.model_validate(parts.pop("config"))
    shared = dict(record["context"])
    uri = tracking_uri(Path(str(shared["root"])))
    return Stage(config=config, **parts), Context(tracking_uri=uri, **shared)  # type: ignore[arg-type]
