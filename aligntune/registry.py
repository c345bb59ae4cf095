"""MLflow's model registry: trained policies as versions of one registered model.

Everything is idempotent by the artifact's key, which each version carries as a tag: registering
again after a kill between any two calls adds what is missing and nothing else.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from aligntune.aliased import KEY, Version
from aligntune.artifacts import Artifact, digest_of, find_named, linked, model_digest, records
from aligntune.deliver import run_of
from aligntune.errors import ServiceError
from aligntune.lineage import Known, Lineage, lineage_of
from aligntune.papers import papers
from aligntune.registered import AGAIN, download
from aligntune.store import ABSENT, asking, client_of, every, one_line
from aligntune.track import connect, experiment, put_model

LOG = logging.getLogger(__name__)

Client = MlflowClient
T = TypeVar("T")
CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
ARTIFACT = "aligntune.artifact"
"""Name of the artifact that a version was registered from."""
FILES = "aligntune.sha256"
"""Digest of the model's files."""
EVALUATED = "aligntune.evaluation.data"
"""Digest of the rows that a version's metrics are of."""
STARTED = "aligntune.started_from"
"""The version that a training went on from, as JSON {version, key}; nothing for a base model."""
LINEAGE = "aligntune.lineage"
"""What a version was made from, as JSON."""
EVIDENCE = "aligntune.decision.json"
PROMOTED = "aligntune.promoted"
REFUSED = "aligntune.refused"
START = "start"
"""The input of `register` that is the version which the training went on from."""


def register(name: str, inputs: Mapping[str, Artifact], uri: str, root: Path) -> dict[str, Any]:
    """Register every trained policy in `inputs`, in order, as a version of `name`.

    The last becomes `candidate`. Returns the facts of the stage: versions by label, aliases.

    Raises:
        ServiceError: the registry failed.
    """
    policies = {
        role: made
        for role, made in inputs.items()
        if role != START and not role.startswith("evaluate-")
    }
    start = _fetched(inputs[START]) if START in inputs else None
    with asking("the trained models are safe, run the same command again"):
        client = connect(uri, root)
        _ensure_registered_model(client, name)
        versions: dict[str, str] = {}
        parent = start["version"] if start else None
        for label, policy in policies.items():
            version = _version(client, name, policy, parent, uri, root)
            made_from = {STARTED: json.dumps(start) if start else ""}
            made_from[LINEAGE] = lineage_of(policy).to_json()
            _tag(client, name, version, made_from)
            versions[label] = parent = str(version.version)
            if evaluation := inputs.get(f"evaluate-{label}"):
                _tag(client, name, version, _measured(evaluation))
        last = versions[list(policies)[-1]]
        client.set_registered_model_alias(name, CANDIDATE, last)
    return {"registered_model": name, "versions": versions, "aliases": {CANDIDATE: last}}


def _fetched(start: Artifact) -> dict[str, str]:
    config = start.manifest.identity["config"]
    return {"version": str(config["version"]), "key": str(config["key"])}


def holder(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that has an alias; None where there is none, or no such registered model."""
    return _there(partial(client.get_model_version_by_alias, name, alias))


def version_of(client: MlflowClient, name: str, version: str) -> ModelVersion | None:
    """The version with this number; None where there is none."""
    return _there(partial(client.get_model_version, name, version))


def is_registered(client: MlflowClient, name: str) -> bool:
    return _there(partial(client.get_registered_model, name)) is not None


def _there(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def champion_of(uri: str, name: str) -> Version | None:
    """The champion, as far as it decides what a run does.

    Raises:
        ServiceError: the registry failed.
    """
    with asking("look at MLFLOW_TRACKING_URI"):
        found = holder(client_of(uri), name, CHAMPION)
    return Version(str(found.version), str(found.source), found.tags) if found else None


def all_versions(uri: str) -> dict[str, list[dict[str, Any]]]:
    """Registered model -> what is known of each of its versions, from first to last; only those
    that we registered.

    Raises:
        ServiceError: the registry failed.
    """
    with asking("look at MLFLOW_TRACKING_URI"):
        client = client_of(uri)
        found = {}
        for model in every(client.search_registered_models):
            if "'" in model.name:  # none of ours, and no filter of MLflow's can name it
                continue
            condition = f"name = '{model.name}'"
            versions = every(partial(client.search_model_versions, condition))
            ours = [version for version in versions if KEY in version.tags]
            if ours:
                ours.sort(key=lambda version: int(version.version))
                found[str(model.name)] = [_described(v, model.aliases) for v in ours]
        return found


def known_versions(uri: str, name: str) -> list[Known]:
    """The versions of one registered model that we registered, from first to last.

    Raises:
        ServiceError: the registry failed.
    """
    with asking("look at MLFLOW_TRACKING_URI"):
        client = client_of(uri)
        if not is_registered(client, name):
            return []
        aliases = client.get_registered_model(name).aliases
        found = every(partial(client.search_model_versions, f"name = '{name}'"))
        known = [_known(version, aliases) for version in found if KEY in version.tags]
    return sorted(known, key=lambda version: int(version.version))


def _known(found: ModelVersion, aliases: Mapping[str, Any]) -> Known:
    tags, number = found.tags, str(found.version)
    start = json.loads(tags.get(STARTED) or "null")
    lineage, evidence = tags.get(LINEAGE), tags.get(EVIDENCE)
    return Known(
        version=number,
        key=tags[KEY],
        artifact=tags.get(ARTIFACT, ""),
        aliases=_held(aliases, number),
        started_from=(start["version"], start["key"]) if start else None,
        evidence=json.loads(evidence) if evidence else None,
        lineage=Lineage.from_json(lineage) if lineage else None,
        metrics=_metrics(tags),
        promoted=tags.get(PROMOTED, ""),
        refused=tags.get(REFUSED, ""),
        run_id=found.run_id or None,
    )


def _held(aliases: Mapping[str, Any], version: str) -> tuple[str, ...]:
    return tuple(sorted(alias for alias, held in aliases.items() if str(held) == version))


def _metrics(tags: Mapping[str, str]) -> dict[str, float]:
    return {
        name.removeprefix("metric."): float(value)
        for name, value in tags.items()
        if name.startswith("metric.")
    }


def _described(version: ModelVersion, aliases: Mapping[str, Any]) -> dict[str, Any]:
    tags, number = version.tags, str(version.version)
    return {
        "version": number,
        "aliases": _held(aliases, number),
        "algorithm": tags.get("aligntune.algorithm", ""),
        "parent": tags.get("aligntune.parent_version") or None,
        "metrics": _metrics(tags),
        "decision": tags.get("aligntune.decision", ""),
        "why": tags.get("aligntune.decision.why", ""),
        "promoted": tags.get(PROMOTED, ""),
        "artifact": tags.get(ARTIFACT, ""),
        "created": int(version.creation_timestamp),
    }


def key_of(version: ModelVersion) -> str:
    """What identifies a version's content: its stage's key, or its source if that is not ours."""
    return Version(str(version.version), str(version.source), version.tags).key


def fetch(
    name: str, version: str, uri: str, root: Path, out: Path, tokenizer: Artifact | None = None
) -> dict[str, Any]:
    """Put the model of a registered version in the new directory `out`; returns what it is.

    The artifact it was registered from is linked where it is below `root`, else it is downloaded.
    With `tokenizer` it gets that one, and its chat template, instead of its own.

    Raises:
        ServiceError: the registry failed, or what it gave is not what was registered.
    """
    with asking(AGAIN):
        client = client_of(uri)
        found = client.get_model_version(name, version)
        if made := find_named(root / "stages", found.tags.get(ARTIFACT, "")):
            shutil.copytree(made.path / "model", out, copy_function=linked)
        else:
            download(f"models:/{name}/{version}", uri, out)
    expected, got_digest = found.tags.get(FILES), digest_of(records(out))
    if expected and got_digest != expected:
        raise ServiceError(
            f"version {version} of {name} does not have the files that were registered; its "
            "artifacts were changed or are incomplete"
        )
    for file in sorted((tokenizer.path / "tokenizer").iterdir()) if tokenizer else ():
        (out / file.name).unlink(missing_ok=True)  # the link, and not what it is a link to
        shutil.copyfile(file, out / file.name)
    facts = {"source": f"models:/{name}/{version}", "fingerprint": f"sha256:{got_digest}"}
    return facts | {"key": key_of(found)}


def run_that_made(made: Artifact, uri: str, root: Path) -> str | None:
    """MLflow's id of the run that made an artifact; None, with a warning, where MLflow is away.

    The artifact does not know it where MLflow was away as it was committed.
    """
    if known := made.manifest.facts.get("mlflow_run_id"):
        return str(known)
    try:
        client = client_of(uri)
        return run_of(client, experiment(client, uri, root), made)
    except (MlflowException, ServiceError) as error:
        LOG.warning("the MLflow run that made %s is not known: %s", made.name, one_line(error))
        return None


def register_reward(name: str, judge: Artifact, uri: str, root: Path) -> dict[str, Any]:
    """Register the reward model in `judge` as a version of `name`, which becomes `candidate`, and
    `champion` as well if there is none yet and it is better than a coin beyond doubt.

    Raises:
        ServiceError: the registry failed.
    """
    with asking("the reward model is safe, run the same command again"):
        client = connect(uri, root)
        _ensure_registered_model(client, name)
        made = _version(client, name, judge, None, uri, root)
        metrics, version = judge.manifest.metrics, str(made.version)
        _tag(client, name, made, {f"metric.{n}": f"{value:.6g}" for n, value in metrics.items()})
        client.set_registered_model_alias(name, CANDIDATE, version)
        aliases = {CANDIDATE: version}
        sound = metrics.get("accuracy/low", 0) > 0.5 or metrics.get("r2", 0) > 0
        champion = holder(client, name, CHAMPION)
        if sound and (champion is None or str(champion.version) == version):
            client.set_registered_model_alias(name, CHAMPION, version)
            aliases[CHAMPION] = version
    return {"registered_model": name, "versions": {"reward": version}, "aliases": aliases}


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    if not is_registered(client, name):
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # made by another run just now
                raise


def _version(
    client: MlflowClient, name: str, policy: Artifact, parent: str | None, uri: str, root: Path
) -> ModelVersion:
    key = policy.manifest.key
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get(KEY) == key:
            return version
    model = _logged_model(client, name, policy, uri, root)
    data = {
        f"aligntune.data.{role}": digest
        for role, digest in policy.manifest.facts.get("data_digests", {}).items()
    }
    tags = {
        KEY: key,
        ARTIFACT: policy.name,
        "aligntune.algorithm": policy.manifest.kind,
        "aligntune.model_id": str(model.model_id),
        "aligntune.parent_version": parent or "",
        FILES: model_digest(policy),
        **data,
    }
    run = model.source_run_id
    return client.create_model_version(
        name,
        # MLflow looks up `models:/<id>`, and a model id without a run, in the process's global
        # store, which it makes in the working directory.
        source=model.artifact_location,
        run_id=run,
        tags=tags,
        model_id=model.model_id if run else None,
    )


def _measured(evaluation: Artifact) -> dict[str, str]:
    """What an evaluation says of a version, as tags; a later one replaces it."""
    document = evaluation.read("evaluation.json")
    found = {EVALUATED: str(document["conditions"]["rows_sha256"])}
    for name, metric in document["metrics"].items():
        for part in ("mean", "low", "high"):
            tag = f"metric.{name}" if part == "mean" else f"metric.{name}/{part}"
            found[tag] = f"{metric[part]:.6g}"
    return found


def _tag(client: MlflowClient, name: str, version: ModelVersion, tags: Mapping[str, str]) -> None:
    for tag, value in tags.items():
        if version.tags.get(tag) != value:
            client.set_model_version_tag(name, str(version.version), tag, value)


def _logged_model(
    client: MlflowClient, name: str, policy: Artifact, uri: str, root: Path
) -> LoggedModel:
    """The LoggedModel that holds the artifact's `model/` directory."""
    where = experiment(client, uri, root)
    found = client.search_logged_models([where], filter_string=f"tags.`{KEY}` = '{policy.name}'")
    for model in found:
        if str(model.status) == "READY":
            return model
    # An upload that broke off goes on in its place.
    model = next(iter(found), None) or client.create_logged_model(
        where,
        name=name.replace(".", "-"),
        source_run_id=run_of(client, where, policy),
        tags={KEY: policy.name},
        params={"algorithm": policy.manifest.kind},
        model_type="policy",
    )
    put_model(client, model, policy.path / "model")
    with papers(policy) as beside:
        client.log_model_artifacts(model.model_id, str(beside))
    return client.finalize_logged_model(model.model_id, "READY")
