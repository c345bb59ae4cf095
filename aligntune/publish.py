"""A trained model on the hub, with a card made from the manifests it came from."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from aligntune.artifacts import WORK, Artifact, ancestors, linked, write_atomic
from aligntune.card import CardFacts, Compared, model_card
from aligntune.checksums import key_id, signing_key
from aligntune.config.slices import PushSlice
from aligntune.hub import push, shipped
from aligntune.models.intake import used_files
from aligntune.papers import enclose

OF_WEIGHTS = {"config.json", "generation_config.json"}
"""What of a model's files without its weights is not its tokenizer's."""
ADAPTER = "A LoRA adapter, trained with `aligntune`, for the base model at the digest below."


def publish(
    config: PushSlice, inputs: Mapping[str, Artifact], out: Path, mlflow_run: str | None
) -> dict[str, Any]:
    """The receipt of the push: repository, commit and address; also written to `out`.

    `mlflow_run` is the id of the run that made the model, for the card.

    Raises:
        ServiceError: the hub failed through all retries.
        ConfigError: the token is missing or may not write there, or the signing key is none.
        DataError: the model is not as its stage made it.
    """
    policy = inputs["policy"]
    facts = _facts(config, policy, inputs["evaluation"], inputs.get("decision"))
    key = signing_key()
    signer = key_id(key.public_key()) if key else None
    card = model_card(replace(facts, mlflow_run=mlflow_run, signer=signer))
    folder = out / WORK / "upload"
    shutil.rmtree(folder, ignore_errors=True)
    if config.adapter_of:
        _copy_adapter(policy, config.adapter_of, folder)
    else:
        shutil.copytree(policy.path / "model", folder, copy_function=linked)
    (folder / "README.md").unlink(missing_ok=True)
    write_atomic(folder / "README.md", card)
    parts = ("adapter", "model") if config.adapter_of else ("model",)
    enclose(policy, parts, folder, shipped(folder))
    receipt = {"signed_by": signer} | asdict(
        push(folder, config.hub_model_id, private=config.private, message=f"Train {policy.name}")
    )
    write_atomic(out / "README.md", card)
    write_atomic(out / "receipt.json", json.dumps(receipt, indent=2))
    return receipt


def _copy_adapter(policy: Artifact, base: str, folder: Path) -> None:
    """The adapter, with the name and commit of the hub model that it belongs on, and the tokenizer
    that it was trained with: the hub model's may have no chat template, or another."""
    shutil.copytree(policy.path / "adapter", folder)
    trained = policy.path / "model"
    for name in set(used_files(trained, weights=False)) - OF_WEIGHTS:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(trained / name, folder / name)
    line = ancestors(policy)
    source = next(made for made in line if made.manifest.kind == "model").manifest.facts
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    revision = str(source["fingerprint"]).removeprefix("commit:")
    write_atomic(
        path, json.dumps(config | {"base_model_name_or_path": base, "revision": revision}, indent=2)
    )


def _facts(
    config: PushSlice, policy: Artifact, evaluation: Artifact, decision: Artifact | None
) -> CardFacts:
    line = ancestors(policy)
    base = next(made for made in line if made.manifest.kind == "model").manifest.facts
    training = policy.manifest.identity["config"]
    given = {**training["train"], "peft": training["peft"], "seed": training["seed"]}
    return CardFacts(
        title=config.hub_model_id.rpartition("/")[2],
        base_model=str(base["source"]),
        base_fingerprint=str(base["fingerprint"]),
        about=ADAPTER if config.adapter_of else CardFacts.about,
        adapter=config.adapter_of is not None,
        algorithm=policy.manifest.kind,
        created=policy.manifest.finished,
        license=config.license,
        datasets=[entry for made in line for entry in datasets_of(made)],
        metrics=_metrics(evaluation),
        comparisons=_comparisons(evaluation),
        decision=_decided(decision),
        lineage=[(made.manifest.kind, made.manifest.key) for made in (*reversed(line), policy)],
        # None is what the algorithm does not have.
        hyperparameters={name: value for name, value in given.items() if value is not None},
        versions=policy.manifest.environment,
    )


def datasets_of(artifact: Artifact) -> list[tuple[str, int, str]]:
    """(names, rows, digest) of a data artifact for a card; nothing of any other."""
    if artifact.manifest.kind != "data":
        return []
    manifest = artifact.manifest
    names = ", ".join(entry["name"] for entry in manifest.identity["config"]["datasets"])
    rows = int(manifest.metrics["rows_train"])
    return [(names, rows, str(manifest.facts["digests"]["train"]))]


def _metrics(evaluation: Artifact) -> list[tuple[str, float, float | None, float | None]]:
    return [
        (name, entry["mean"], entry["low"], entry["high"])
        for name, entry in evaluation.read("evaluation.json")["metrics"].items()
    ]


def _comparisons(evaluation: Artifact) -> list[Compared]:
    return [
        Compared(
            name, against, found["difference"], found["low"], found["high"], found["p_value"],
            found["verdict"],
        )
        for name, entry in evaluation.read("evaluation.json")["metrics"].items()
        for against, found in entry["against"].items()
    ]  # fmt: skip


def _decided(decision: Artifact | None) -> str | None:
    return "{verdict}: {why}".format_map(decision.manifest.facts) if decision else None
