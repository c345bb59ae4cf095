"""The bill of materials of a trained model: CycloneDX 1.6 JSON, from the manifests it came from.

The same model gives the same bytes. Nothing of a machine is in it: no paths, no environment.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from aligntune.artifacts import (
    Artifact,
    FileRecord,
    ancestors,
    digest_of,
    model_digest,
    model_files,
)
from aligntune.card import without_places
from aligntune.config.algo import ONLINE
from aligntune.errors import public
from aligntune.lineage import Source, lineage_of

Part = dict[str, Any]

SPEC = "1.6"
NO_LIBRARIES = ("aligntune", "python", "git", "lock")


def bill(policy: Artifact, files: Mapping[str, FileRecord]) -> str:
    """The bill of the model in `policy` as it is shipped, in `files`."""
    line = ancestors(policy)
    manifest = policy.manifest
    models = [_model(made) for made in line if model_files(made)]
    data = [_dataset(i, source) for i, source in enumerate(lineage_of(policy).sources)]
    libraries = [
        library(name, version)
        for name, version in manifest.environment.items()
        if name not in NO_LIBRARIES
    ]
    parts = [*models, *data, *libraries]
    main = {
        "type": "machine-learning-model",
        "bom-ref": policy.name,
        "name": policy.name,
        "version": manifest.key,
        "hashes": [_sha256(digest_of(files))],
        "components": [
            {"type": "file", "name": name, "hashes": [_sha256(files[name].sha256)]}
            for name in sorted(files)
        ],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": _approach(manifest.kind)},
                "task": "text-generation",
                "datasets": [{"ref": part["bom-ref"]} for part in data],
            }
        },
        "properties": _properties(policy, line),
    }
    made_with = {"type": "application", "name": "aligntune"}
    if known := manifest.environment.get("aligntune"):
        made_with["version"] = known
    return document(main, parts, [made_with], _iso(manifest.finished))


def document(
    main: Part, parts: Sequence[Part], tools: Sequence[Part], timestamp: str | None = None
) -> str:
    """A bill about `main`, which depends on all of `parts`, each of which has a `bom-ref`."""
    metadata: Part = {"timestamp": timestamp} if timestamp else {}
    found = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": metadata | {"tools": {"components": list(tools)}, "component": main},
        "components": list(parts),
        "dependencies": [
            {"ref": main["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]},
            *({"ref": part["bom-ref"]} for part in parts),
        ],
    }
    content = json.dumps(found, sort_keys=True)
    serial = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}"
    return json.dumps({"serialNumber": serial} | found, indent=2, ensure_ascii=False) + "\n"


def library(name: str, version: str, hashes: Iterable[str] = ()) -> Part:
    """A Python distribution; `hashes` are sha256 of its files."""
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version, safe='.')}"
    part: Part = {"type": "library", "bom-ref": purl, "name": name, "version": version}
    part["purl"] = purl
    if found := [_sha256(digest) for digest in hashes]:
        part["hashes"] = found
    return part


def _model(made: Artifact) -> Part:
    """A model that this one was made from: the base, or what was trained before, or a judge."""
    facts = made.manifest.facts
    source = facts.get("source")
    part: Part = {
        "type": "machine-learning-model",
        "bom-ref": made.name,
        "name": _plain(str(source)) if source else made.name,
        "hashes": [_sha256(model_digest(made))],
    }
    if fingerprint := facts.get("fingerprint"):
        part["version"] = str(fingerprint)
    part["properties"] = [{"name": "aligntune:stage", "value": made.name}]
    return part


def _dataset(i: int, source: Source) -> Part:
    part: Part = {
        "type": "data",
        "bom-ref": f"{source.stage}-{i}",
        "name": _plain(source.name),
        "version": source.digest,
        "data": [{"type": "dataset", "name": _plain(source.name)}],
    }
    kind, _, digest = source.digest.partition(":")
    if kind == "sha256" and len(digest) == 64:
        part["hashes"] = [_sha256(digest)]
    rows = {} if source.rows is None else {"aligntune:rows": str(source.rows)}
    part["properties"] = _named({"aligntune:stage": source.stage} | rows)
    return part


def _properties(policy: Artifact, line: Sequence[Artifact]) -> list[Part]:
    manifest = policy.manifest
    config = manifest.identity.get("config", {})
    template = manifest.files.get("model/chat_template.jinja")
    found = {
        "aligntune:algorithm": manifest.kind,
        "aligntune:config:sha256": _canonical(config),
        "aligntune:seed": config.get("seed"),
        "aligntune:chat-template:sha256": template.sha256 if template else None,
        "aligntune:code:commit": manifest.environment.get("git"),
        "aligntune:lock:sha256": manifest.environment.get("lock"),
        "aligntune:python": manifest.environment.get("python"),
    }
    for made in line:
        for split, digest in made.manifest.facts.get("digests", {}).items():
            found[f"aligntune:rows:{made.name}:{split}:sha256"] = digest
    return _named(found)


def _named(found: Mapping[str, object]) -> list[Part]:
    return [{"name": n, "value": str(value)} for n, value in found.items() if value is not None]


def _approach(kind: str) -> str:
    return "reinforcement-learning" if kind in ONLINE else "supervised"


def _canonical(config: object) -> str:
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(name: str) -> str:
    """A name from a config, without a password or a place on this machine."""
    return "".join(c for c in without_places(public(name)) if c.isprintable())


def _sha256(digest: str) -> Part:
    return {"alg": "SHA-256", "content": digest}


def _iso(when: str) -> str | None:
    """`2026-11-25 22:23:59 UTC` as RFC 3339 has it."""
    return when.removesuffix(" UTC").replace(" ", "T") + "Z" if when else None
