"""MLflow: one run per pipeline run, one child per stage. The only door to it beside `registry`.

MLflow remembers; the artifact directories are the truth. So nothing here raises into a stage: what
could not be recorded is a warning, and the stage's journal and manifest still have it.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

from aligntune.artifacts import MANIFEST, Artifact, write_atomic
from aligntune.journal import FILE, SAMPLES, complete_lines

LOG = logging.getLogger(__name__)

EXPERIMENT = "aligntune"
MAX_ARTIFACT = 5_000_000
"""Bytes; larger files stay in the artifact directory, and weights go to the registered model."""
_BATCH = 1000
"""Metrics per request, MLflow's limit."""
_DIGEST = 36
"""Characters of a dataset digest, MLflow's limit."""
_SOURCE = 65_535
"""Characters of a dataset's source, MLflow's limit."""
_SEND_EVERY = 5.0
"""Seconds between batches while a stage runs."""
SAMPLE_TABLE = "samples.json"
"""The run's table of a model's answers in training."""


def connect(uri: str, root: Path) -> MlflowClient:
    """A client of the store at `uri`, which is created below `root` where it is a local file."""
    from filelock import FileLock

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    root.mkdir(parents=True, exist_ok=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)
    with FileLock(root / ".mlflow.lock"):  # two processes must not both migrate a new database
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment(client, uri, root)
    return client


def experiment(client: MlflowClient, uri: str, root: Path) -> str:
    """The id of our experiment, made if it is not there."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found:
        return str(found.experiment_id)
    location = (root / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


@contextmanager
def reporting(what: str) -> Iterator[None]:
    """Turns a failure of MLflow into a warning."""
    try:
        yield
    except (MlflowException, OSError) as error:
        LOG.warning("MLflow did not record %s: %s", what, str(error).splitlines()[0])


@dataclass(frozen=True)
class Tracker:
    """Where a pipeline run reports to. Strings only, so that it can be handed to a child."""

    uri: str
    root: Path
    parent: str | None
    """The pipeline's MLflow run, or None where MLflow was not there at the start."""

    def client(self) -> MlflowClient:
        return connect(self.uri, self.root)


def open_pipeline(
    uri: str,
    root: Path,
    folder: Path | None,
    name: str,
    config: Mapping[str, Any],
    role: str = "pipeline",
) -> str:
    """The MLflow run of this pipeline run: the unfinished one that `folder` remembers, or a new
    one, which `folder` will remember. `config` becomes its params."""
    client = connect(uri, root)
    state = folder / "mlflow.json" if folder else None
    if state and (run_id := _unfinished(client, state)):
        client.update_run(run_id, status="RUNNING")
        return run_id
    run = client.create_run(
        experiment(client, uri, root), run_name=name, tags={"aligntune.role": role}
    )
    run_id = str(run.info.run_id)
    _log_params(client, run_id, config)
    if state:
        write_atomic(state, json.dumps({"run_id": run_id}))
    return run_id


def _unfinished(client: MlflowClient, state: Path) -> str | None:
    if not state.exists():
        return None
    run_id = str(json.loads(state.read_text())["run_id"])
    try:
        run = client.get_run(run_id)
    except MlflowException:  # another store, or deleted there
        return None
    return None if run.info.status == "FINISHED" else run_id


def close_pipeline(
    tracker: Tracker, status: str, metrics: Mapping[str, float], files: Sequence[Path]
) -> None:
    """End the pipeline's run as FINISHED, FAILED or KILLED."""
    if tracker.parent is None:
        return
    with reporting("the end of the run"):
        client = tracker.client()
        _log_metrics(client, tracker.parent, metrics)
        for file in files:
            client.log_artifact(tracker.parent, str(file))
        client.set_terminated(tracker.parent, status)


@contextmanager
def stage_run(
    tracker: Tracker, label: str, name: str, config: Mapping[str, Any], work: Path
) -> Iterator[str | None]:
    """The stage's MLflow run, open while the block runs; yields its id, or None without MLflow.

    A stage that is resumed continues the run that its scratch directory remembers. The run ends as
    FAILED on errors and as KILLED on anything that stops a process; the caller ends it as finished
    with `finish_stage`.
    """
    run_id = None
    with reporting(f"the start of {label}"):
        run_id = _open_stage(tracker, label, name, config, work / "mlflow.json")
    try:
        yield run_id
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) and not _resumable(error) else "KILLED"
        if run_id:
            with reporting(f"the end of {label}"):
                tracker.client().set_terminated(run_id, status)
        raise


@contextmanager
def forwarding(tracker: Tracker, run_id: str | None, out: Path, work: Path) -> Iterator[None]:
    """Sends the journal in `out` to the run in batches, and the samples beside it as a table, while
    the block runs and at its end."""
    if run_id is None:
        yield
        return
    forwarder = _Forwarder(tracker, run_id, out / FILE, work / "sent")
    try:
        yield
    finally:
        forwarder.stop()


def _resumable(error: Exception) -> bool:
    from aligntune.errors import Interrupted

    return isinstance(error, Interrupted)


def _open_stage(
    tracker: Tracker, label: str, name: str, config: Mapping[str, Any], state: Path
) -> str:
    client = tracker.client()
    if run_id := _unfinished(client, state):
        client.update_run(run_id, status="RUNNING")
        return run_id
    run_id = _child(client, tracker, label, {"aligntune.artifact": name})
    _log_params(client, run_id, config)
    write_atomic(state, json.dumps({"run_id": run_id}))
    return run_id


def _child(client: MlflowClient, tracker: Tracker, label: str, tags: Mapping[str, str]) -> str:
    parent = {"mlflow.parentRunId": tracker.parent} if tracker.parent else {}
    run = client.create_run(
        experiment(client, tracker.uri, tracker.root),
        run_name=label,
        tags={"aligntune.role": "stage", "aligntune.stage": label, **parent, **tags},
    )
    return str(run.info.run_id)


def finish_stage(
    tracker: Tracker, run_id: str, artifact: Artifact, data: Mapping[str, Artifact]
) -> None:
    """Record what the stage made: summary metrics, its data sets, its small files."""
    with reporting(f"the result of {artifact.name}"):
        client = tracker.client()
        _log_metrics(client, run_id, artifact.manifest.metrics)
        inputs = [described for role, made in data.items() for described in datasets(role, made)]
        if inputs:
            client.log_inputs(run_id, inputs)
        for name, record in artifact.manifest.files.items():
            if "/" not in name and record.size <= MAX_ARTIFACT:
                client.log_artifact(run_id, str(artifact.path / name))
        client.log_artifact(run_id, str(artifact.path / MANIFEST))
        client.set_terminated(run_id, "FINISHED")


def reused_stage(tracker: Tracker, label: str, artifact: Artifact) -> str | None:
    """A short run for a stage that was not run again, so that a pipeline run is complete by
    itself; it carries the metrics and names the run that made the artifact."""
    with reporting(f"the reuse of {label}"):
        client = tracker.client()
        origin = str(artifact.manifest.facts.get("mlflow_run_id") or "")
        tags = {"aligntune.artifact": artifact.name, "aligntune.cached_from": origin}
        run_id = _child(client, tracker, label, tags)
        _log_metrics(client, run_id, artifact.manifest.metrics)
        if artifact.manifest.kind == "data":
            client.log_inputs(run_id, datasets(label, artifact))
        client.set_terminated(run_id, "FINISHED")
        return run_id
    return None


def datasets(role: str, artifact: Artifact) -> list[DatasetInput]:
    """A data artifact as MLflow datasets, one per split, with our digests: MLflow's own does not
    see chat columns, nor rows after the 10,000th."""
    found = []
    for split, digest in artifact.manifest.facts["digests"].items():
        file = artifact.path / f"{split}.parquet"
        described = Dataset(
            name=f"{artifact.name}-{split}",
            digest=digest[:_DIGEST],
            source_type="local",
            source=_source(file, artifact.manifest.facts["sources"]),
            schema=_schema(file),
            profile=json.dumps({"num_rows": artifact.manifest.metrics[f"rows_{split}"]}),
        )
        found.append(DatasetInput(described, [InputTag("mlflow.data.context", role)]))
    return found


def _source(file: Path, sources: Sequence[Mapping[str, Any]]) -> str:
    """Where the rows are, and what they came from, as far as MLflow has room for it."""
    names = ("name", "subset", "split", "fingerprint")
    came = [{name: source[name] for name in names if source.get(name)} for source in sources]
    while True:
        left_out = {"left_out": len(sources) - len(came)} if len(came) < len(sources) else {}
        text = json.dumps({"uri": str(file), "sources": came} | left_out)
        if len(text) <= _SOURCE or not came:
            return text
        came = came[: len(came) // 2]


def _schema(file: Path) -> str:
    """The columns as MLflow shows them."""
    import pyarrow.parquet as pq

    columns = [
        {"name": column.name, "required": not column.nullable} | _type(column.type)
        for column in pq.read_schema(file)
    ]
    return json.dumps({"mlflow_colspec": columns})


def _type(column: Any) -> dict[str, Any]:
    from pyarrow import types

    if types.is_list(column):
        return {"type": "array", "items": _type(column.value_type)}
    if types.is_struct(column):
        fields = {field.name: _type(field.type) | {"required": False} for field in column}
        return {"type": "object", "properties": fields}
    return {"type": "boolean" if types.is_boolean(column) else "string"}


def _log_params(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    items = [Param(name, _text(value)) for name, value in params.items() if value is not None]
    for start in range(0, len(items), 100):
        client.log_batch(run_id, params=items[start : start + 100])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _log_metrics(client: MlflowClient, run_id: str, metrics: Mapping[str, float]) -> None:
    now = time.time_ns() // 1_000_000
    client.log_batch(
        run_id, metrics=[Metric(name, value, now, 0) for name, value in metrics.items()]
    )


class _Forwarder:
    """Sends a growing journal to MLflow from a thread of its own.

    How far it got is kept beside the journal, and rows carry their own times, so sending one twice
    after a crash changes nothing.
    """

    def __init__(self, tracker: Tracker, run_id: str, journal: Path, state: Path) -> None:
        self._client = tracker.client()
        self._run_id = run_id
        self._journal = journal
        self._state = state
        self._samples = journal.with_name(SAMPLES)
        self._shown = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="mlflow-forwarder", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while not self._stop.wait(_SEND_EVERY):
            self._send()
            self._show()

    def _send(self) -> None:
        with reporting("training metrics (they are kept and sent with the next batch)"):
            offset = int(self._state.read_text()) if self._state.exists() else 0
            lines = complete_lines(self._journal, offset)
            if not lines:
                return
            rows = [json.loads(line) for line in lines]
            metrics = [
                Metric(name, value, row["time"], row["step"])
                for row in rows
                for name, value in row["metrics"].items()
            ]
            for start in range(0, len(metrics), _BATCH):
                self._client.log_batch(self._run_id, metrics=metrics[start : start + _BATCH])
            write_atomic(self._state, str(offset + sum(len(line) for line in lines)))

    def _show(self) -> None:
        """The samples so far, as MLflow's own tables are written, but for the part that appends:
        what a resumed attempt takes back would stay."""
        with reporting("the samples (they are kept and sent with the next ones)"):
            text = b"".join(complete_lines(self._samples)) if self._samples.exists() else b""
            if text == self._shown:
                return
            self._client.log_dict(self._run_id, sample_table(text), SAMPLE_TABLE)
            tag = json.dumps([{"path": SAMPLE_TABLE, "type": "table"}])
            self._client.set_tag(self._run_id, MLFLOW_LOGGED_ARTIFACTS, tag)
            self._shown = text

    def stop(self) -> None:
        """Send what is left, once."""
        self._stop.set()
        self._thread.join()
        self._send()
        self._show()


def sample_table(lines: bytes) -> dict[str, list[Any]]:
    """Logged samples as a table: step, prompt, completion, and a column for each reward."""
    rows = [json.loads(line) for line in lines.splitlines()]
    names = list(dict.fromkeys(name for row in rows for name in row.get("rewards", {})))
    plain = ("step", "prompt", "completion")
    return {
        "columns": [*plain, *(f"rewards/{name}" for name in names)],
        "data": [
            [*(row[name] for name in plain), *(row.get("rewards", {}).get(name) for name in names)]
            for row in rows
        ],
    }
