"""MLflow's model registry: trained policies as versions of one registered model.

Everything is idempotent by the artifact's key, which each version carries as a tag: registering
again after a kill between any two calls adds what is missing and nothing else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from aligntune.artifacts import Artifact
from aligntune.deliver import run_of
from aligntune.errors import ServiceError
from aligntune.track import connect, experiment

KEY = "aligntune.key"


def register(name: str, inputs: Mapping[str, Artifact], uri: str, root: Path) -> dict[str, Any]:
    """Register every trained policy in `inputs`, in order, as a version of `name`.

    The last becomes `candidate`. It becomes `champion` as well if there is none yet and it is
    better than the base model on at least one metric and worse on none. Returns the facts of the
    stage: versions by label, aliases, model ids.

    Raises:
        ServiceError: the registry failed.
    """
    policies = {role: made for role, made in inputs.items() if not role.startswith("evaluate-")}
    try:
        client = connect(uri, root)
        _ensure_registered_model(client, name)
        versions: dict[str, str] = {}
        parent = None
        for label, policy in policies.items():
            evaluation = inputs.get(f"evaluate-{label}")
            version = _version(client, name, policy, evaluation, parent, uri, root)
            versions[label] = parent = str(version.version)
        last = list(policies)[-1]
        aliases = _aliases(client, name, versions[last], inputs[f"evaluate-{last}"])
    except MlflowException as error:
        raise ServiceError(
            f"the model registry failed: {str(error).splitlines()[0]}; "
            "the trained models are safe, run the same command again"
        ) from error
    return {"registered_model": name, "versions": versions, "aliases": aliases}


def register_reward(name: str, judge: Artifact, uri: str, root: Path) -> dict[str, Any]:
    """Register the reward model in `judge` as a version of `name`, which becomes `candidate`, and
    `champion` as well if there is none yet and it is better than a coin beyond doubt.

    Raises:
        ServiceError: the registry failed.
    """
    try:
        client = connect(uri, root)
        _ensure_registered_model(client, name)
        version = str(_version(client, name, judge, judge, None, uri, root).version)
        client.set_registered_model_alias(name, "candidate", version)
        aliases = {"candidate": version}
        metrics = judge.manifest.metrics
        sound = metrics.get("accuracy/low", 0) > 0.5 or metrics.get("r2", 0) > 0
        if sound and _holder(client, name, "champion") in (None, version):
            client.set_registered_model_alias(name, "champion", version)
            aliases["champion"] = version
    except MlflowException as error:
        raise ServiceError(
            f"the model registry failed: {str(error).splitlines()[0]}; "
            "the reward model is safe, run the same command again"
        ) from error
    return {"registered_model": name, "versions": {"reward": version}, "aliases": aliases}


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # made by another run just now
                raise


def _version(
    client: MlflowClient,
    name: str,
    policy: Artifact,
    evaluation: Artifact | None,
    parent: str | None,
    uri: str,
    root: Path,
) -> ModelVersion:
    key = policy.manifest.key
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get(KEY) == key:
            return version
    model = _logged_model(client, name, policy, uri, root)
    scores = evaluation.manifest.metrics if evaluation else {}
    data = {
        f"aligntune.data.{role}": digest
        for role, digest in policy.manifest.facts.get("data_digests", {}).items()
    }
    tags = {
        KEY: key,
        "aligntune.artifact": policy.name,
        "aligntune.algorithm": policy.manifest.kind,
        "aligntune.model_id": str(model.model_id),
        "aligntune.parent_version": parent or "",
        **data,
        **{f"metric.{metric}": f"{value:.6g}" for metric, value in scores.items()},
    }
    return client.create_model_version(
        name,
        # Not `models:/<id>`, which MLflow looks up in the process's global store.
        source=model.artifact_location,
        run_id=model.source_run_id,
        tags=tags,
        model_id=model.model_id,
    )


def _logged_model(
    client: MlflowClient, name: str, policy: Artifact, uri: str, root: Path
) -> LoggedModel:
    """The LoggedModel that holds the artifact's `model/` directory."""
    where = experiment(client, uri, root)
    found = client.search_logged_models([where], filter_string=f"tags.`{KEY}` = '{policy.name}'")
    for model in found:
        if str(model.status) == "READY":
            return model
    model = client.create_logged_model(
        where,
        name=name.replace(".", "-"),
        source_run_id=run_of(client, where, policy),
        tags={KEY: policy.name},
        params={"algorithm": policy.manifest.kind},
        model_type="policy",
    )
    client.log_model_artifacts(model.model_id, str(policy.path / "model"))
    return client.finalize_logged_model(model.model_id, "READY")


def _aliases(client: MlflowClient, name: str, version: str, evaluation: Artifact) -> dict[str, str]:
    client.set_registered_model_alias(name, "candidate", version)
    aliases = {"candidate": version}
    if _holder(client, name, "champion") is None and _better(evaluation):
        client.set_registered_model_alias(name, "champion", version)
        aliases["champion"] = version
    return aliases


def _holder(client: MlflowClient, name: str, alias: str) -> str | None:
    aliases: Mapping[str, str] = client.get_registered_model(name).aliases
    return aliases.get(alias)


def _better(evaluation: Artifact) -> bool:
    """Whether the intervals against the base model leave no doubt."""
    verdicts = set(evaluation.manifest.facts.get("verdicts", {}).get("base", {}).values())
    return "better" in verdicts and "worse" not in verdicts
