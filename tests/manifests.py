"""Manifests of artifacts that a test makes by hand."""

from typing import Any

from aligntune.artifacts import Manifest


def manifest(kind: str, key: str, **known: Any) -> Manifest:
    """With what is `known`, and nothing in its other fields."""
    made_of: dict[str, Any] = {"identity": {}, "inputs": {}, "environment": {}, "files": {}}
    told = {"metrics": {}, "started": "", "finished": "", "seconds": 0.0}
    return Manifest(kind=kind, key=key, **made_of | told | known)
