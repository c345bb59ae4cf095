"""Datasets that MLflow runs were logged with, as names that a config could have."""

import json
import os
from typing import Any

from aligntune.errors import ConfigError, ServiceError

LOCAL = ("uri", "path", "url")
"""Where MLflow's kinds of dataset sources have a place."""


def logged_dataset(run_id: str, wanted: str) -> str:
    """The file, directory or URL that a run's dataset is in.

    `wanted` is its name or the context it was logged in; it may be empty where there is one only.

    Raises:
        ConfigError: there is no such run or dataset.
        ServiceError: MLflow cannot be reached.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise ConfigError(
            "no MLflow to ask; set MLFLOW_TRACKING_URI, for example to sqlite:///output/mlflow.db"
        )
    try:
        run = MlflowClient(tracking_uri=uri).get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise ConfigError(
                f"MLflow has no run {run_id!r}; look at MLFLOW_TRACKING_URI"
            ) from None
        reason = str(error).splitlines()[0]
        raise ServiceError(f"MLflow could not be asked for run {run_id!r}: {reason}") from error
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
