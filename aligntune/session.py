"""One pipeline run from its first stage to its report, whoever executes the stages.

<output_dir>/runs/<run_name>/
    config.yaml     the resolved config; runs again as it is
    plan.json       stages, keys, and why each was run or reused
    status.json     running, finished, failed or stopped, since when, and what stopped it
    environment.txt every package that was installed
    stages/<label>  links to the artifacts
    logs/<label>.txt  what a stage's own process said
    model           link to the final model: from_pretrained(".../model") works
    report.html     the report
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from aligntune.afterwards import survives, tell
from aligntune.artifacts import Artifact, find, make_folder, staged, timestamp, write_atomic
from aligntune.config.dump import dump
from aligntune.config.slices import DecideSlice, EvaluateSlice
from aligntune.errors import AlignTuneError, Interrupted
from aligntune.evaluate.allowed import held_out, refuse
from aligntune.identity import flat
from aligntune.outbox import Ending, Outbox, Record, continued, new_record
from aligntune.paths import tracking_identity, tracking_uri
from aligntune.pipeline import final
from aligntune.plan import Plan
from aligntune.provenance import installed, tags
from aligntune.run import PATIENCE, Context, Done

NOTHING: Mapping[str, str] = MappingProxyType({})


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
        self._refuse_metrics(done)

    def _refuse_metrics(self, done: Done) -> None:
        """DataError where this made the held-out rows, and they do not allow a metric that is asked
        for, by a gate as well: now, and not after a training."""
        for planned in self.plan.stages:
            spec, inputs = planned.stage.config, planned.stage.inputs
            if isinstance(spec, EvaluateSlice) and not planned.artifact:
                names = (*spec.metrics, *self._gated)
                if names and inputs["data"] == done.artifact:
                    file = self.plan.paths.stages / done.artifact / f"{spec.split}.parquet"
                    refuse(names, held_out(file, spec.max_samples))
                return

    @property
    def _gated(self) -> list[str]:
        """The metrics of the gates that the run decides by."""
        specs = (planned.stage.config for planned in self.plan.stages)
        return [g.metric for spec in specs if isinstance(spec, DecideSlice) for g in spec.gates]

    @property
    def outbox(self) -> Outbox:
        return Outbox(Path(self.context.root))

    @property
    def mlflow_run(self) -> str | None:
        """MLflow's id of this run, as far as it is known."""
        return self.outbox.run_id(self.context.record) if self.context.record else None

    def ask_mlflow(self) -> None:
        """Learn which runs the stages have got by now; waits a little where some have none yet."""
        end = time.monotonic() + PATIENCE
        for label, done in self.done.items():
            left = max(0.0, end - time.monotonic())
            found = done.mlflow_run or self.outbox.run_id(done.record, left)
            self.done[label] = replace(done, mlflow_run=found)

    def run_url(self, run_id: str | None) -> str | None:
        """The page of an MLflow run, without a password, where the tracking store is a server."""
        if run_id is None or not self.context.tracking_uri.startswith(("http://", "https://")):
            return None
        found = self.outbox.sent(self.context.record or "").experiment
        where = tracking_identity().rstrip("/")
        return f"{where}/#/experiments/{found}/runs/{run_id}" if found else None

    def artifact(self, label: str) -> Artifact:
        stage = self.plan[label].stage
        artifact = find(self.plan.paths.stages, stage.kind, stage.key)
        if artifact is None:
            raise AlignTuneError(f"{label}: {stage.name} is missing or damaged; run again")
        return artifact


@contextmanager
def opened(
    plan: Plan, command: str, named: Mapping[str, str] = NOTHING, *, afterwards: bool = False
) -> Iterator[Session]:
    """A session whose MLflow run ends as FINISHED, FAILED or KILLED, and whose report is written.
    `named` are tags of that run. With `afterwards` a run that reuses everything does not wait for
    MLflow: a process that goes on by itself tells it, where one can.

    If the same run is going on in another process, this one reports as an MLflow run of its own.
    """
    from filelock import FileLock, Timeout

    from aligntune.summary import headline_metrics, write_report

    folder = plan.paths.run
    make_folder(folder / "stages")
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
            write_atomic(folder / "environment.txt", installed())
        own = folder if owned else None
        apart = afterwards and survives() and all(planned.artifact for planned in plan.stages)
        tracked = _tracked(plan, command, own, named=named, apart=apart)
        with _status(own), tracked as (session, ending):
            with _reported(session):
                yield session
            if not apart:
                session.ask_mlflow()
            write_report(session)
            ending.metrics = headline_metrics(session)
            names = ("config.yaml", "plan.json", "environment.txt")
            ending.files = [session.report, *(folder / name for name in names)]
    finally:
        if owned:
            held.release()


@contextmanager
def _reported(session: Session) -> Iterator[None]:
    """Leaves a page of what was finished where the block fails or is stopped."""
    from aligntune.summary import write_report

    try:
        yield
    except BaseException as error:
        with suppress(AlignTuneError, OSError, ValueError, KeyError):  # the error matters more
            write_report(session, str(error) or type(error).__name__)
        raise


@contextmanager
def preparing(plan: Plan, command: str, part: str = "data") -> Iterator[Session]:
    """A session for a part of a run: no report, and an MLflow run that says which part it is."""
    make_folder(plan.paths.run / "stages")
    with _tracked(plan, command, None, part) as (session, _):
        yield session


@contextmanager
def _status(folder: Path | None) -> Iterator[None]:
    """Says in status.json how the block goes; one that was killed is still said to be running."""
    process = {"pid": os.getpid(), "host": socket.gethostname()}
    told = {"state": "running", "started": timestamp(), **process}

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
            tell(state=state, ended=timestamp(), error=str(error) or type(error).__name__)
        raise
    tell(state="finished", ended=timestamp())


@contextmanager
def _tracked(
    plan: Plan,
    command: str,
    folder: Path | None,
    role: str = "pipeline",
    named: Mapping[str, str] = NOTHING,
    apart: bool = False,
) -> Iterator[tuple[Session, Ending]]:
    """A session and its record in the outbox, which MLflow gets while the block runs, or `apart`
    from it.

    `folder` remembers the record: a run that did not finish is continued, not started anew.
    """
    root = plan.paths.root
    record = continued(Outbox(root), folder, _record(plan, command, role, named))
    uri = tracking_uri(root)
    context = Context(str(root), uri, plan.paths.run.name, record.id)
    with _delivered(context, record.store, apart), Outbox(root).owned(record) as ending:
        yield Session(plan, context, command), ending


@contextmanager
def _delivered(context: Context, store: str, apart: bool) -> Iterator[None]:
    if not apart:
        from aligntune.courier import delivering

        with delivering(context.tracking_uri, Path(context.root), store, str(context.record)):
            yield
        return
    try:
        yield
    finally:
        # To import MLflow and tell it takes several times as long as to reuse all stages.
        tell(Path(context.root))


def _record(plan: Plan, command: str, role: str, named: Mapping[str, str]) -> Record:
    stages = [f"- {planned.stage.label}: `{planned.stage.name}`" for planned in plan.stages]
    places = [f"`{command}`", "", f"Its directory: `{plan.paths.run}`", "", "Stages:", ""]
    note = "\n".join(places + stages)
    sweep = plan.config.logging.sweep
    return new_record(
        role=role,
        name=plan.paths.run.name,
        store=tracking_identity(),
        params=flat(plan.config.model_dump(mode="json")),
        tags=tags()
        | {
            "aligntune.run": plan.paths.run.name,
            "aligntune.command": command,
            "mlflow.note.content": note,
        }
        | dict(named)
        | ({"aligntune.sweep": sweep} if sweep else {}),
    )


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
    with staged(link) as staging:
        staging.symlink_to(os.path.relpath(target, link.parent))
