"""One pipeline run from its first stage to its report, whoever executes the stages.

<output_dir>/runs/<run_name>/
    config.yaml     the resolved config; runs again as it is
    plan.json       stages, keys, and why each was run or reused
    status.json     running, finished, failed or stopped, since when, and what stopped it
    stages/<label>  links to the artifacts
    model           link to the final model: from_pretrained(".../model") works
    report.html     the report
"""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from aligntune.artifacts import Artifact, find, write_atomic
from aligntune.config.dump import dump
from aligntune.errors import AlignTuneError, Interrupted
from aligntune.paths import tracking_identity, tracking_uri
from aligntune.pipeline import final
from aligntune.plan import Plan, flat
from aligntune.run import Context, Done

LOG = logging.getLogger(__name__)


@dataclass
class Session:
    """A run that is going on."""

    plan: Plan
    context: Context
    command: str
    """What makes this run again."""
    began: float = field(default_factory=time.monotonic)
    done: dict[str, Done] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.plan.paths.run

    @property
    def final(self) -> str:
        """The label of the stage whose model is the run's result."""
        return final(self.plan.config)

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def add(self, done: Done) -> None:
        """Remember a finished stage and link to its artifact."""
        self.done[done.label] = done
        _link(self.folder / "stages" / done.label, self.plan.paths.stages / done.artifact)
        if done.label == self.final:
            _link(self.folder / "model", self.plan.paths.stages / done.artifact / "model")

    def run_url(self, run_id: str | None) -> str | None:
        """The page of an MLflow run, without a password, where the tracking store is a server."""
        from aligntune.track import Tracker, experiment, reporting

        uri, root = self.context.tracking_uri, Path(self.context.root)
        if run_id is None or not uri.startswith(("http://", "https://")):
            return None
        with reporting("the address of a run"):
            found = experiment(Tracker(uri, root, None).client(), uri, root)
            return f"{tracking_identity().rstrip('/')}/#/experiments/{found}/runs/{run_id}"
        return None

    def artifact(self, label: str) -> Artifact:
        stage = self.plan[label].stage
        artifact = find(self.plan.paths.stages, stage.kind, stage.key)
        if artifact is None:
            raise AlignTuneError(f"{label}: {stage.name} is missing or damaged; run again")
        return artifact


@contextmanager
def opened(plan: Plan, command: str) -> Iterator[Session]:
    """A session whose MLflow run ends as FINISHED, FAILED or KILLED, and whose report is written.

    If the same run is going on in another process, this one reports as an MLflow run of its own.
    """
    from filelock import FileLock, Timeout

    folder = plan.paths.run
    (folder / "stages").mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / ".lock")
    try:
        held.acquire(blocking=False)
        owned = True
    except Timeout:
        owned = False
    try:
        if owned:
            write_atomic(folder / "config.yaml", dump(plan.config))
            write_atomic(folder / "plan.json", _plan_json(plan))
        with _status(folder if owned else None):
            session = Session(plan, _context(plan, folder, owned), command)
            with _tracked(session):
                yield session
    finally:
        if owned:
            held.release()


@contextmanager
def preparing(plan: Plan, command: str) -> Iterator[Session]:
    """A session for a part of a run: no report, and an MLflow run that says that it is a part."""
    from aligntune.track import Tracker, close_pipeline

    (plan.paths.run / "stages").mkdir(parents=True, exist_ok=True)
    session = Session(plan, _context(plan, plan.paths.run, owned=False, role="data"), command)
    context = session.context
    tracker = Tracker(context.tracking_uri, Path(context.root), context.parent_run)
    try:
        yield session
    except BaseException as error:
        failed = isinstance(error, Exception) and not isinstance(error, Interrupted)
        close_pipeline(tracker, "FAILED" if failed else "KILLED", {}, [])
        raise
    close_pipeline(tracker, "FINISHED", {}, [])


@contextmanager
def _status(folder: Path | None) -> Iterator[None]:
    """Says in status.json how the block goes; one that was killed is still said to be running."""
    process = {"pid": os.getpid(), "host": socket.gethostname()}
    told = {"state": "running", "started": _now(), **process}

    def tell(**more: str) -> None:
        if folder:
            told.update(more)
            write_atomic(folder / "status.json", json.dumps(told, indent=2))

    tell()
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, Interrupted) or not isinstance(error, Exception)
        state = "stopped" if stopped else "failed"
        with suppress(OSError):  # a full disk, perhaps, which the error then says
            tell(state=state, ended=_now(), error=str(error) or type(error).__name__)
        raise
    tell(state="finished", ended=_now())


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _context(plan: Plan, folder: Path, owned: bool, role: str = "pipeline") -> Context:
    from aligntune.track import open_pipeline, reporting

    root = plan.paths.root
    uri = tracking_uri(root)
    parent = None
    with reporting("the start of the run"):
        params = flat(plan.config.model_dump(mode="json"))
        state = folder if owned else None
        parent = open_pipeline(uri, root, state, folder.name, params, role)
    return Context(str(root), uri, parent)


@contextmanager
def _tracked(session: Session) -> Iterator[None]:
    from aligntune.summary import headline_metrics, write_report
    from aligntune.track import Tracker, close_pipeline

    context = session.context
    tracker = Tracker(context.tracking_uri, Path(context.root), context.parent_run)
    try:
        yield
        write_report(session)
        metrics = headline_metrics(session)
    except BaseException as error:
        failed = isinstance(error, Exception) and not isinstance(error, Interrupted)
        close_pipeline(tracker, "FAILED" if failed else "KILLED", {}, [])
        raise
    files = [session.report, session.folder / "config.yaml", session.folder / "plan.json"]
    close_pipeline(tracker, "FINISHED", metrics, files)


def _plan_json(plan: Plan) -> str:
    rows = [
        {
            "stage": planned.stage.label,
            "artifact": planned.stage.name,
            "state": "reuse" if planned.artifact else "run",
            "why": planned.why,
            "inputs": dict(planned.stage.inputs),
        }
        for planned in plan.stages
    ]
    return json.dumps(rows, indent=2)


def _link(link: Path, target: Path) -> None:
    """A relative link, replaced in one step, so that the output directory can be moved."""
    staging = link.with_name(f".{link.name}.{os.getpid()}")
    staging.unlink(missing_ok=True)
    staging.symlink_to(os.path.relpath(target, link.parent))
    staging.replace(link)
