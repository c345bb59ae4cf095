"""What MLflow has to be told, on disk until it has been told.

<output_dir>/outbox/<id>/     one for each MLflow run, from before MLflow has it
    record.json     what the run is and how it stands, written by the process it belongs to
    system.jsonl    what the machine did meanwhile
    files/          what a pipeline run leaves, as it was at its end
    sent.json       what has arrived, written by whoever delivers
    lock            held by the process that the run belongs to, as long as it lives

A stage's metrics, data and files are not copied: they are in its artifact. So a run costs a stage
one small file at its start and one at its end, whether MLflow is there or not.
"""

import json
import logging
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from aligntune.artifacts import MANIFEST, WORK, Artifact, find, find_named, unnamed, write_atomic
from aligntune.errors import Interrupted
from aligntune.journal import FILE
from aligntune.paths import EXPERIMENT, experiment_name

LOG = logging.getLogger(__name__)

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
RUN = "run"
"""The manifest's fact that names the record of the run that made the artifact."""
PIPELINE = "pipeline"
"""The manifest's fact that names the record of the pipeline run that this was in."""
SYSTEM = "system.jsonl"
_STATE = "mlflow.json"
"""In a stage's scratch and in a pipeline run's directory: the record that is theirs."""
_RECORD = "record.json"
_SENT = "sent.json"


class Record(BaseModel):
    """One MLflow run, as it has to become."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    id: str
    """Ours, and the run's tag `aligntune.id`: what finds the run again."""
    role: Literal["pipeline", "data", "evaluation", "push", "stage"]
    name: str
    store: str
    """The tracking store that it is for, without a password."""
    experiment: str = EXPERIMENT
    """The name of the experiment there."""
    parent: str | None = None
    """The record of the pipeline run that a stage belongs to."""
    artifact: str | None = None
    """`<kind>-<key>`, what a stage makes or reuses."""
    reused: bool = False
    inputs: dict[str, str] = {}
    """Role -> `<kind>-<key>`."""
    params: dict[str, Any] = {}
    tags: dict[str, str] = {}
    metrics: dict[str, float] = {}
    """Of a pipeline run; a stage's are in its manifest."""
    started: int
    """Milliseconds since 1970."""
    status: Status = "RUNNING"
    ended: int | None = None

    @property
    def state(self) -> str:
        """The status, and which of several attempts it is of."""
        return self.status if self.ended is None else f"{self.status} {self.ended}"


class Sent(BaseModel):
    """How much of a record has arrived."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    experiment: str | None = None
    run_id: str | None = None
    """MLflow's id of the run."""
    told: str | None = None
    """The record's `state` up to which everything has arrived."""
    offsets: dict[str, int] = {}
    """Journal -> bytes of it that have arrived; for the samples, which go as a whole, their
    checksum."""
    ending: str | None = None
    """The `state` with which the run ended that `steps` are of."""
    steps: tuple[str, ...] = ()
    """What else of the run's end has arrived."""
    refused: dict[str, str] = {}
    """What could not be brought though MLflow was there, and why; it is kept until it can."""

    @property
    def anew(self) -> "Sent":
        """Nothing but the run, so that all of it is brought again."""
        return Sent(experiment=self.experiment, run_id=self.run_id)


@dataclass
class Ending:
    """What a run's owner adds to its record when it ends well."""

    metrics: dict[str, float] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


class Outbox:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "outbox"
        self.changed = self.folder / "changed"
        """Touched whenever a record is written."""
        self.away = self.folder / "away"
        """There while MLflow is not."""

    def place(self, record_id: str) -> Path:
        return self.folder / record_id

    def record(self, record_id: str) -> Record | None:
        try:
            return Record.model_validate_json((self.place(record_id) / _RECORD).read_bytes())
        except (OSError, ValidationError):
            return None

    def records(self) -> list[Record]:
        """All of them, in the order in which the runs began."""
        ids = [path.parent.name for path in self.folder.glob(f"*/{_RECORD}")]
        found = [record for record in map(self.record, ids) if record]
        return sorted(found, key=lambda record: (record.started, record.role == "stage", record.id))

    def sent(self, record_id: str) -> Sent:
        try:
            return Sent.model_validate_json((self.place(record_id) / _SENT).read_bytes())
        except (OSError, ValidationError):
            return Sent()

    def remember(self, record_id: str, sent: Sent) -> None:
        write_atomic(self.place(record_id) / _SENT, sent.model_dump_json())

    def write(self, record: Record) -> None:
        place = self.place(record.id)
        place.mkdir(parents=True, exist_ok=True)
        write_atomic(place / _RECORD, record.model_dump_json(indent=2))
        self.changed.touch()

    def waiting(self, store: str) -> list[Record]:
        """The records for `store` of which something has not arrived, or may still come."""
        return [
            record
            for record in self.records()
            if record.store == store
            and (record.status == "RUNNING" or self.sent(record.id).told != record.state)
        ]

    def refused(self, store: str) -> list[Record]:
        """The records for `store` that are not whole, though their run's end has arrived."""
        ours = (record for record in self.records() if record.store == store)
        return [record for record in ours if self.sent(record.id).refused]

    def run_id(self, record_id: str, patience: float = 0.0) -> str | None:
        """MLflow's id of the run; None where MLflow has not got it within `patience` seconds."""
        end = time.monotonic() + patience
        while (found := self.sent(record_id).run_id) is None and not self.away.exists():
            if time.monotonic() >= end:
                break
            time.sleep(0.05)
        return found

    def artifact(self, name: str | None) -> Artifact | None:
        return find_named(self.root / "stages", name) if name else None

    def journal(self, record: Record) -> Path | None:
        """Where the run's metrics by step are, if they are still this run's."""
        if record.artifact is None or record.reused:
            return None
        if made := self.made(record):
            return made.path / FILE
        partial = self.root / "stages" / f"{record.artifact}.partial"
        return partial / FILE if _known(partial / WORK) == record.id else None

    def made(self, record: Record) -> Artifact | None:
        """The artifact, if it is the one that this run made; also where a kill left it whole and
        without its name, which the next to need it gives it."""
        kind, _, key = (record.artifact or "").rpartition("-")
        for look in (find, unnamed):
            found = look(self.root / "stages", kind, key)
            if found and found.manifest.facts.get(RUN) == record.id:
                return found
        return None

    @contextmanager
    def owned(self, record: Record) -> Iterator[Ending]:
        """The record, while its run is going on in this process.

        Ends it as FINISHED with what the block put into `Ending`, as FAILED on errors, and as
        KILLED on what stops a process.
        """
        with self.held(record.id):
            self.write(record)
            ending = Ending()
            try:
                yield ending
            except BaseException as error:
                failed = isinstance(error, Exception) and not isinstance(error, Interrupted)
                self._end(record, "FAILED" if failed else "KILLED", Ending())
                raise
            self._end(record, "FINISHED", ending)

    @contextmanager
    def held(self, record_id: str) -> Iterator[None]:
        from filelock import FileLock

        place = self.place(record_id)
        held = FileLock(place / "lock")
        while not held.is_locked:
            place.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # `tidy` was faster: nothing is in there yet
                held.acquire()
        try:
            yield
        finally:
            held.release()

    def _end(
        self, record: Record, status: Status, ending: Ending, ended: int | None = None
    ) -> None:
        try:
            for file in ending.files:
                kept = self.place(record.id) / "files"
                kept.mkdir(exist_ok=True)
                shutil.copyfile(file, kept / file.name)
            end = {"status": status, "ended": ended or now(), "metrics": ending.metrics}
            self.write(record.model_copy(update=end))
        except OSError as error:  # what the run made is safe, and the next one closes the record
            LOG.warning("%s: its end was not noted for MLflow: %s", record.name, error)

    def close_the_dead(self) -> None:
        """End the runs whose process is gone: FINISHED if their artifact is there, else KILLED."""
        from filelock import FileLock, Timeout

        for record in self.records():
            if record.status != "RUNNING":
                continue
            try:
                with FileLock(self.place(record.id) / "lock", timeout=0):
                    current = self.record(record.id)  # it may have ended just now
                    if current and current.status == "RUNNING":
                        status: Status = "FINISHED" if self.made(current) else "KILLED"
                        self._end(current, status, Ending(), self._last_sign(current))
            except Timeout:
                continue

    def _last_sign(self, record: Record) -> int:
        """When a run that was killed was last seen alive."""
        made, journal = self.made(record), self.journal(record)
        places = [self.place(record.id) / _RECORD, self.place(record.id) / SYSTEM, journal]
        places += [made.path / MANIFEST] if made else []
        return max(int(path.stat().st_mtime * 1000) for path in places if path and path.exists())

    def tidy(self) -> None:
        """Remove what has arrived and cannot change any more, and what processes left that were
        killed as they began a record or removed it."""
        for record in self.records():
            sent = self.sent(record.id)
            arrived = sent.told == record.state and not sent.refused
            if arrived and record.status != "RUNNING" and not self._goes_on(record):
                (self.place(record.id) / _RECORD).unlink(missing_ok=True)
        for place in self.folder.iterdir():
            if place.is_dir() and not (place / _RECORD).exists():
                self._clear(place)

    def _goes_on(self, record: Record) -> bool:
        """Whether a later attempt will be of the same run: what it was in remembers it."""
        if record.status == "FINISHED":
            return False
        stage = f"stages/{record.artifact}.partial/{WORK}"
        folder = stage if record.artifact else f"runs/{record.name}"
        return _known(self.root / folder) == record.id

    def _clear(self, place: Path) -> None:
        from filelock import FileLock, Timeout

        with suppress(Timeout, FileNotFoundError), FileLock(place / "lock", timeout=0):
            if not (place / _RECORD).exists():
                shutil.rmtree(place, ignore_errors=True)


def new_record(**fields: Any) -> Record:
    fresh = {"id": uuid.uuid4().hex, "started": now(), "experiment": experiment_name()}
    return Record(**fresh | fields)


def continued(outbox: Outbox, folder: Path | None, fresh: Record) -> Record:
    """The unfinished record that `folder` remembers, if it is of the same thing, with the parent
    and the inputs of `fresh`; else `fresh`, which `folder` will remember."""
    known = outbox.record(_known(folder) or "") if folder else None
    if known and known.status != "FINISHED" and _same(known, fresh):
        return fresh.model_copy(update={"id": known.id, "started": known.started})
    if folder:
        write_atomic(folder / _STATE, json.dumps({"id": fresh.id}))
    return fresh


def _same(one: Record, other: Record) -> bool:
    names = ("role", "name", "store", "experiment", "artifact", "params")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _known(folder: Path) -> str | None:
    try:
        found = json.loads((folder / _STATE).read_text(encoding="utf-8")).get("id")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
