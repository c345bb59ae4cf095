"""From the outbox to MLflow: each thing once, in order, however often it is tried.

Nothing is sent that cannot be sent again. A run is looked for by its tag before it is made; a point
has its own step and time, and MLflow keeps one of equal ones; params, tags, data sets and files
that are there already stay as they are. So what was sent but not noted as sent is sent twice, and
is there once.
"""

import json
import logging
import posixpath
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

from aligntune.artifacts import MANIFEST, Artifact
from aligntune.journal import SAMPLES, complete_lines
from aligntune.outbox import RUN, SYSTEM, Outbox, Record, Sent
from aligntune.store import every, of_a_server, one_line, status_of
from aligntune.track import SAMPLE_TABLE, datasets, sample_table

LOG = logging.getLogger(__name__)
T = TypeVar("T")

MAX_ARTIFACT = 5_000_000
"""Bytes; larger files stay in the artifact directory, and weights go to the registered model."""
_BATCH = 1000
"""Metrics per request, MLflow's limit."""
_ITEMS = 100
"""Params or tags per request, MLflow's limit."""
_ROWS = 100
"""Rows of a journal between two notes of how far it got."""
_PARAM, _TAG, _NAME = 6_000, 8_000, 250
"""Characters, MLflow's limits."""
_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
"""Answers that would be the same next time; anything else is MLflow being away."""
_STATUSES = {400, 404, 413, 415, 422}
"""The same, where files are kept: a proxy's limit of what it takes, for example."""
_DATABASE, _DATA = "sqlalche.me/e/", re.compile(r"sqlalche\.me/e/\w+/9h9h")
"""What MLflow's BAD_REQUEST has in it where its database failed, and where that was for the data.
A pool without a free connection, or one that was lost, is no refusal."""


class Delivery:
    """Brings records to the store that `client` talks to."""

    def __init__(
        self, outbox: Outbox, client: MlflowClient, experiment: Callable[[str], str]
    ) -> None:
        """`experiment` gives the id of the one with a name."""
        self._outbox = outbox
        self._client = client
        self._experiment = experiment
        self._origins: dict[str, str] = {}

    def going(self, record: Record) -> None:
        """Send what a run has so far: itself, params, tags, metrics by step.

        Raises:
            MlflowException, OSError: MLflow is away; what has arrived is noted.
        """
        self._begun(record)
        for journal, path in self._journals(record):
            self._points(record, journal, path)

    def samples(self, record: Record) -> None:
        """Send a model's answers so far as one of MLflow's tables, which is replaced: what a
        resumed attempt takes back must not stay. Raises like `going`, which has to come before."""
        journal, sent = self._outbox.journal(record), self._outbox.sent(record.id)
        text = b"".join(complete_lines(journal.with_name(SAMPLES))) if journal else b""
        if not text or zlib.crc32(text) == sent.offsets.get(SAMPLES):
            return
        run_id = str(sent.run_id)
        self._tolerant(record, "samples", partial(self._send_samples, run_id, text))
        self._note(record, offsets=sent.offsets | {SAMPLES: zlib.crc32(text)})

    def _send_samples(self, run_id: str, text: bytes) -> None:
        self._client.log_dict(run_id, sample_table(text), SAMPLE_TABLE)
        tag = json.dumps([{"path": SAMPLE_TABLE, "type": "table"}])
        self._client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, tag)

    def ended(self, record: Record) -> None:
        """Send what the end of a run brings: data, results, files, its status. Raises like
        `going`, which has to come before."""
        sent = self._outbox.sent(record.id)
        if sent.ending != record.state:  # an earlier end, which did not arrive whole, is over
            sent = self._note(record, ending=record.state, steps=())
        run_id = str(sent.run_id)
        steps = {
            "inputs": self._send_inputs,
            "summary": self._send_summary,
            "files": self._send_files,
        }
        for name, send in steps.items():
            arrived = self._outbox.sent(record.id).steps
            if name not in arrived:
                self._tolerant(record, name, partial(send, record, run_id))
                self._note(record, steps=(*arrived, name))
        end = partial(self._client.set_terminated, run_id, record.status, record.ended)
        self._tolerant(record, "end", end)
        self._note(record, told=record.state)

    def _note(self, record: Record, **arrived: Any) -> Sent:
        sent = self._outbox.sent(record.id).model_copy(update=arrived)
        self._outbox.remember(record.id, sent)
        return sent

    def _tolerant(self, record: Record, what: str, send: Callable[[], object]) -> None:
        """What would fail again is a warning, and does not hold up the rest. It is remembered where
        it can be mended, which what MLflow itself refuses cannot."""
        try:
            send()
        except Exception as error:
            if not lasting(error):
                raise
            said = one_line(error)
            LOG.warning("MLflow did not take the %s of %s: %s", what, record.name, said)
            if not isinstance(error, MlflowException):
                refused = self._outbox.sent(record.id).refused
                self._note(record, refused=refused | {what: said})

    def _begun(self, record: Record) -> Sent:
        """The run, made, described and running."""
        sent = self._outbox.sent(record.id)
        if sent.told not in (None, "RUNNING", record.state):  # it had ended, and goes on
            sent = self._reopened(record, sent)
        if sent.run_id is None:
            where = self._experiment(record.experiment)
            run_id = self._found(record.id, where) or self._made(record, where)
            sent = self._note(record, run_id=run_id, experiment=where)
        if sent.told not in ("RUNNING", record.state):
            run_id = str(sent.run_id)
            self._tolerant(record, "tags", partial(self._send_tags, record, run_id))
            self._tolerant(record, "params", partial(self._send_params, record, run_id))
            sent = self._note(record, told="RUNNING")
        return sent

    def _reopened(self, record: Record, sent: Sent) -> Sent:
        """A run that goes on; a new one takes its place where somebody has deleted it."""
        try:
            self._client.update_run(str(sent.run_id), status="RUNNING")
        except MlflowException as error:
            if not lasting(error):
                raise
            sent = Sent()
        sent = sent.anew if sent.refused else sent
        self._outbox.remember(record.id, sent)
        return sent

    def _found(self, record_id: str, where: str) -> str | None:
        """The run with our id. Should an answer have been lost on the way and a second one have
        been made, that one goes."""
        runs = self._client.search_runs(
            [where],
            f"tags.`aligntune.id` = '{record_id}'",
            order_by=["attributes.start_time ASC"],
        )
        for doubled in runs[1:]:
            self._client.delete_run(doubled.info.run_id)
        return str(runs[0].info.run_id) if runs else None

    def _made(self, record: Record, where: str) -> str:
        tags = {"aligntune.id": record.id, "aligntune.role": record.role}
        if parent := self._parent(record):
            tags["mlflow.parentRunId"] = parent
        run = self._client.create_run(
            where, start_time=record.started, tags=tags, run_name=record.name
        )
        return str(run.info.run_id)

    def _parent(self, record: Record) -> str | None:
        if record.parent is None:
            return None
        known = self._outbox.sent(record.parent).run_id
        if known is None and (waits := self._outbox.record(record.parent)):
            known = self._begun(waits).run_id
        return known or self._found(record.parent, self._experiment(record.experiment))

    def _send_tags(self, record: Record, run_id: str) -> None:
        tags = record.tags | dict(self._links(record))
        if parent := self._parent(record):
            tags["mlflow.parentRunId"] = parent
        items = [RunTag(name, value[:_TAG]) for name, value in tags.items()]
        for part in _parts(items, _ITEMS):
            self._client.log_batch(run_id, tags=part)

    def _send_params(self, record: Record, run_id: str) -> None:
        items = [
            Param(_safe(name), _text(value)[:_PARAM])
            for name, value in record.params.items()
            if value is not None
        ]
        for part in _parts(items, _ITEMS):
            self._client.log_batch(run_id, params=part)

    def _links(self, record: Record) -> Iterator[tuple[str, str]]:
        """From a stage's run to what it used: artifacts, and the runs that made them."""
        if record.artifact:
            yield "aligntune.artifact", record.artifact
        if record.reused:
            yield "aligntune.cached_from", self._origin(record, record.artifact) or "unknown"
        for role, name in record.inputs.items():
            yield f"aligntune.input.{role}", name
            if origin := self._origin(record, name):
                yield f"aligntune.input_run.{role}", origin

    def _origin(self, record: Record, name: str | None) -> str | None:
        artifact = self._outbox.artifact(name)
        if artifact and artifact.name not in self._origins:
            found = run_of(self._client, self._experiment(record.experiment), artifact)
            if found is None:
                return None
            self._origins[artifact.name] = found
        return self._origins[artifact.name] if artifact else None

    def _journals(self, record: Record) -> Iterator[tuple[str, Path]]:
        if path := self._outbox.journal(record):
            yield "metrics", path
        yield SYSTEM, self._outbox.place(record.id) / SYSTEM

    def _points(self, record: Record, journal: str, path: Path) -> None:
        sent = self._outbox.sent(record.id)
        offset = sent.offsets.get(journal, 0)
        for lines in _parts(complete_lines(path, offset), _ROWS):
            self._tolerant(record, "metrics", partial(self._send_rows, str(sent.run_id), lines))
            offset += sum(len(line) for line in lines)
            sent = self._note(record, offsets=sent.offsets | {journal: offset})

    def _send_rows(self, run_id: str, lines: list[bytes]) -> None:
        rows = [json.loads(line) for line in lines]
        points = [
            Metric(_safe(name), value, row["time"], row["step"])
            for row in rows
            for name, value in row["metrics"].items()
        ]
        self._log(run_id, points)

    def _log(self, run_id: str, points: list[Metric]) -> None:
        for part in _parts(points, _BATCH):
            self._client.log_batch(run_id, metrics=part)

    def _send_inputs(self, record: Record, run_id: str) -> None:
        """The data that a stage read, or that it is."""
        used = {role: self._outbox.artifact(name) for role, name in record.inputs.items()}
        own = {record.name: self._result(record)}
        data = [
            described
            for role, artifact in (used | own).items()
            if artifact and artifact.manifest.kind == "data"
            for described in datasets(role, artifact)
        ]
        if data:
            self._client.log_inputs(run_id, data)

    def _send_summary(self, record: Record, run_id: str) -> None:
        made = self._result(record)
        metrics = {**(made.manifest.metrics if made else {}), **record.metrics}
        points = [Metric(_safe(name), value, record.ended, 0) for name, value in metrics.items()]
        self._log(run_id, points)
        chosen = made.manifest.facts.get("choice", {}) if made else {}
        params = [
            Param(f"chosen.{name}", _text(value))
            for name, value in chosen.items()
            if name != "reasons"
        ]
        if params:
            self._client.log_batch(run_id, params=params)

    def _send_files(self, record: Record, run_id: str) -> None:
        for path in self._files(record):
            send = partial(self._client.log_artifact, run_id, str(path))
            self._tolerant(record, path.name, send)

    def _files(self, record: Record) -> Iterator[Path]:
        yield from sorted((self._outbox.place(record.id) / "files").glob("*"))
        if made := self._outbox.made(record):
            for name, entry in made.manifest.files.items():
                # Not every S3 store lists what is empty.
                if "/" not in name and 0 < entry.size <= MAX_ARTIFACT:
                    yield made.path / name
            yield made.path / MANIFEST

    def _result(self, record: Record) -> Artifact | None:
        """What the stage made or reused, if it is done."""
        if record.status != "FINISHED":
            return None
        return self._outbox.made(record) or self._outbox.artifact(record.artifact)


def run_of(client: MlflowClient, experiment: str, artifact: Artifact) -> str | None:
    """MLflow's id of the run that made an artifact, if this store has it: most likely in this
    experiment."""
    facts: Mapping[str, Any] = artifact.manifest.facts
    if own := facts.get(RUN):
        find = partial(client.search_runs, filter_string=f"tags.`aligntune.id` = '{own}'")
        runs = find([experiment], max_results=1)
        if not runs:
            found = every(client.search_experiments)
            runs = find([each.experiment_id for each in found], max_results=1)
        return str(runs[0].info.run_id) if runs else None
    return facts.get("mlflow_run_id")


def lasting(error: Exception) -> bool:
    """Whether it would be the same next time, for what was sent: MLflow, or what keeps its files,
    is there and refuses it, or it is damaged here."""
    if isinstance(error, MlflowException):
        # It may be its database that failed, and not for what it was given.
        passes = _DATABASE in str(error) and not _DATA.search(str(error))
        return error.error_code in _REFUSALS and not passes
    if of_a_server(error):
        return status_of(error) in _STATUSES
    return isinstance(error, (ValueError, LookupError, TypeError, FileNotFoundError))


def _safe(name: str) -> str:
    """The name with the characters that MLflow takes."""
    return posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII))[:_NAME]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parts(items: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
