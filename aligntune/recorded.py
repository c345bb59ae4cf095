"""What MLflow knows of runs: the datasets they were logged with, and all that was logged."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from aligntune.errors import ConfigError
from aligntune.registered import AGAIN
from aligntune.uncollected import uncollected

LOCAL = ("uri", "path", "url")
"""Where MLflow's kinds of dataset sources have a place."""


def logged_dataset(run_id: str, wanted: str) -> str:
    """The file, directory or URL that a run's dataset is in.

    `wanted` is its name or the context it was logged in; it may be empty where there is one only.

    Raises:
        ConfigError: there is no such run or dataset.
        ServiceError: MLflow cannot be reached.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise ConfigError(
            "no MLflow to ask; set MLFLOW_TRACKING_URI, for example to sqlite:///output/mlflow.db"
        )
    from aligntune.store import client_of

    with _asking_for(run_id):
        run = client_of(uri).get_run(run_id)
    found = {
        name: entry.dataset
        for entry in run.inputs.dataset_inputs
        for name in _names(entry)
        if wanted in ("", name)
    }
    sets = {id(dataset): dataset for dataset in found.values()}
    if len(sets) != 1:
        known = sorted({n for entry in run.inputs.dataset_inputs for n in _names(entry)})
        what = f"no dataset {wanted!r}" if wanted else f"{len(sets)} datasets"
        raise ConfigError(f"MLflow run {run_id!r} has {what}; name one of {', '.join(known)}")
    (dataset,) = sets.values()
    return _place(dataset)


@dataclass(frozen=True)
class RecordedRun:
    """A pipeline's run or a stage's, as it was logged."""

    run_id: str
    name: str
    status: str
    """FINISHED, RUNNING, FAILED, KILLED."""
    started: int
    """Milliseconds since 1970."""
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    """The last value of each."""
    tags: Mapping[str, str]
    stages: tuple["RecordedRun", ...] = ()
    """Oldest first."""


def recorded_run(run_id: str, uri: str) -> RecordedRun:
    """The pipeline's run `run_id` in the store at `uri` with its stages; a stage's id stands for
    its pipeline's.

    Raises:
        ConfigError: there is no such run.
        ServiceError: MLflow cannot be reached.
    """
    from aligntune.store import client_of

    with _asking_for(run_id):
        client = client_of(uri)
        run = client.get_run(run_id)
        if parent := run.data.tags.get("mlflow.parentRunId"):
            run = client.get_run(parent)
        condition = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        where, order = [run.info.experiment_id], ["attributes.start_time ASC"]
        found = client.search_runs(where, condition, order_by=order)
    return _recorded(run, tuple(_recorded(stage, ()) for stage in found))


def history(run_id: str, uri: str, names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Metric -> its (step, value) pairs by step, for those of `names` that the run has."""
    from aligntune.store import client_of

    with _asking_for(run_id), uncollected():  # a point of a curve is several objects to MLflow
        client = client_of(uri)
        known = client.get_run(run_id).data.metrics
        return {
            name: sorted((m.step, m.value) for m in client.get_metric_history(run_id, name))
            for name in names
            if name in known
        }


def _recorded(run: Any, stages: tuple[RecordedRun, ...]) -> RecordedRun:
    info, data = run.info, run.data
    return RecordedRun(
        info.run_id, info.run_name or info.run_id, info.status, info.start_time,
        dict(data.params), dict(data.metrics), dict(data.tags), stages,
    )  # fmt: skip


def _asking_for(run_id: str) -> AbstractContextManager[None]:
    from aligntune.store import asking

    return asking(AGAIN, f"MLflow has no run {run_id!r}; look at MLFLOW_TRACKING_URI")


def _names(entry: Any) -> list[str]:
    contexts = [tag.value for tag in entry.tags if tag.key == "mlflow.data.context"]
    return [entry.dataset.name, *contexts]


def _place(dataset: Any) -> str:
    source = json.loads(dataset.source)
    for name in LOCAL:
        if isinstance(source.get(name), str):
            return str(source[name]).removeprefix("file://")
    raise ConfigError(
        f"MLflow dataset {dataset.name!r} is from {dataset.source_type!r}, which names no file"
    )
