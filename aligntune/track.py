"""MLflow's store as we need it: made, with our experiment in it, and data in its terms.

MLflow remembers; the artifact directories are the truth. What it has to be told is written to the
`outbox`, and `deliver` sends it: nothing here is called by a stage while it works.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LifecycleStage,
    LoggedModel,
)
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from aligntune.artifacts import Artifact, linked
from aligntune.errors import DataError, ServiceError, public
from aligntune.paths import BY_ID, EXPERIMENT, SQLITE, database_file, experiment_name
from aligntune.store import ABSENT, client_of

LOG = logging.getLogger(__name__)

SAMPLE_TABLE = "samples.json"
"""The run's table of a model's answers in training."""
_DIGEST = 36
"""Characters of a dataset digest, MLflow's limit."""
_SOURCE = 65_535
"""Characters of a dataset's source, MLflow's limit."""


def connect(uri: str, root: Path) -> MlflowClient:
    """A client of the store at `uri`, which is created where it is a local file.

    Raises:
        ServiceError: such a file cannot be where it is to be, or our experiment was deleted.
        MlflowException: MLflow is away.
    """
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db").setLevel(logging.CRITICAL)  # we say it
    file = database_file(uri)
    # Two processes must not both migrate a new database, which several roots may share.
    lock = file.with_name(f".{file.stem}.lock") if file else root / ".mlflow.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise ServiceError(
            f"MLflow's database cannot be {file}: {error}; set MLFLOW_TRACKING_URI to another place"
        ) from error
    with FileLock(lock):
        if file and not file.exists():
            _make_database(file)
        client = client_of(uri)
        experiment(client, uri, root)
    return client


def _make_database(file: Path) -> None:
    """MLflow's tables are made beside the name and get it when they are whole: with half of them,
    after a kill or on a full disk, MLflow would never start again."""
    folder = file.with_name(f".{file.name}.new")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / file.name).touch()
    client_of(f"{SQLITE}{folder / file.name}").search_experiments(max_results=1)
    if not file.exists():  # a server of MLflow's may have made it meanwhile, and be using it
        (folder / file.name).rename(file)
    shutil.rmtree(folder, ignore_errors=True)


def experiment(client: MlflowClient, uri: str, root: Path, name: str | None = None) -> str:
    """The id of the experiment `name`, or else of this environment's, made if it is not there.

    Raises:
        ServiceError: somebody has deleted it.
        MlflowException: MLflow is away.
    """
    name = name or experiment_name()
    found = _by_id(client, name.removeprefix(BY_ID)) if name.startswith(BY_ID) else None
    if found is None:
        name = EXPERIMENT if name.startswith(BY_ID) else name
        found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == LifecycleStage.DELETED:
        raise ServiceError(
            f"MLflow's experiment {name!r} has been deleted; `MLFLOW_TRACKING_URI={public(uri)} "
            f"mlflow experiments restore --experiment-id {found.experiment_id}` brings it back"
        )
    if found:
        return str(found.experiment_id)
    location = (root / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Another run made it just now.
    return str(client.get_experiment_by_name(name).experiment_id)


def _by_id(client: MlflowClient, number: str) -> Experiment | None:
    """None where there is none: its runs would wait for ever, and all others behind them."""
    try:
        return client.get_experiment(number)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
    LOG.warning(
        "MLflow has no experiment with the id %r of MLFLOW_EXPERIMENT_ID; what was meant for it is "
        "in %r", number, EXPERIMENT,
    )  # fmt: skip
    return None


def put_model(client: MlflowClient, model: LoggedModel, folder: Path) -> None:
    """Bring the files of `folder` to a LoggedModel: as links where they are kept in a directory
    here, which takes no time and no room, else as MLflow copies or uploads them."""
    kept = get_artifact_repository(model.artifact_location, client.tracking_uri)
    if isinstance(kept, LocalArtifactRepository):
        shutil.copytree(folder, kept.artifact_dir, copy_function=linked, dirs_exist_ok=True)
    else:
        client.log_model_artifacts(model.model_id, str(folder))


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

    try:
        schema = pq.read_schema(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}; remove {file.parent}") from error
    columns = [
        {"name": column.name, "required": not column.nullable} | _type(column.type)
        for column in schema
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


def sample_table(lines: bytes) -> dict[str, list[Any]]:
    """Logged samples as a table: step, prompt, completion, a column for each reward, and what an
    algorithm has to say of its answers."""
    rows = [json.loads(line) for line in lines.splitlines()]
    names = list(dict.fromkeys(name for row in rows for name in row.get("rewards", {})))
    plain = ["step", "prompt", "completion"]
    known = {*plain, "rewards"}
    notes = list(dict.fromkeys(name for row in rows for name in row if name not in known))
    return {
        "columns": [*plain, *(f"rewards/{name}" for name in names), *notes],
        "data": [
            [
                *(row[name] for name in plain),
                *(row.get("rewards", {}).get(name) for name in names),
                *(json.dumps(row[name]) if name in row else None for name in notes),
            ]
            for row in rows
        ],
    }
