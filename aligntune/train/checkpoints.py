"""Checkpoints that are whole or not there.

    <folder>/step-000120/           a committed checkpoint, with the digest of every file
    <folder>/quarantine/            those that did not verify, kept for a person to look at

transformers writes into a folder of its own; only a copy that got its manifest and its name here
counts. Neither folder names nor file times are trusted on resume.
"""

import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from aligntune.artifacts import MANIFEST, FileRecord, fsync, records, seal
from aligntune.digest import sha256
from aligntune.identity import differences

LOG = logging.getLogger(__name__)

NOTHING: Mapping[str, Any] = MappingProxyType({})
NEVER_KEPT = "training_args.bin"
"""A pickle that holds the hub token in clear text, and that nothing here reads."""

NEEDED = ("optimizer", "scheduler", "rng_state", "trainer_state")
"""What the names of a checkpoint's files begin with, weights apart. transformers goes on without
the first three, to another result."""


class CheckpointManifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    key: str
    """Of the stage: a checkpoint of another config is not ours to continue."""
    files: dict[str, FileRecord]
    eval_loss: float | None = None
    """Held-out loss, where it was measured at this step."""
    healthy: bool = True
    """Whether training showed no sign of a collapse at this step."""
    identity: dict[str, Any] = {}
    """What the key digests, to say what differs."""
    digest: str = ""
    """Of this manifest without it: nothing in here can change unseen either."""

    def sealed(self) -> str:
        """Its text, with its digest."""
        plain = self.model_copy(update={"digest": ""}).model_dump_json(indent=2)
        digest = hashlib.sha256(plain.encode()).hexdigest()
        return self.model_copy(update={"digest": digest}).model_dump_json(indent=2)


def commit(
    written: Path,
    folder: Path,
    *,
    step: int,
    key: str,
    keep: int = 2,
    eval_loss: float | None = None,
    healthy: bool = True,
    identity: Mapping[str, Any] = NOTHING,
) -> Path:
    """Move the checkpoint in `written` to its committed place; then drop all but the newest, the
    newest healthy one, and the one with the lowest held-out loss."""
    (written / NEVER_KEPT).unlink(missing_ok=True)
    manifest = CheckpointManifest(
        step=step,
        key=key,
        files=records(written),
        eval_loss=eval_loss,
        healthy=healthy,
        identity=dict(identity),
    )
    seal(written, MANIFEST, manifest.sealed())
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:06d}"
    if final.exists():
        shutil.rmtree(final)
    written.rename(final)
    fsync(folder)
    kept = best(folder), _newest_healthy(folder)
    for old in _by_step(folder)[:-keep]:
        if old not in kept:
            shutil.rmtree(old)
    return final


def best(folder: Path) -> Path | None:
    """The checkpoint with the lowest held-out loss, unverified; None if none was measured."""
    manifests = {path: _manifest(path) for path in _by_step(folder)}
    measured = {
        path: manifest.eval_loss
        for path, manifest in manifests.items()
        if manifest and manifest.eval_loss is not None
    }
    return min(measured, key=lambda path: measured[path], default=None)


def _newest_healthy(folder: Path) -> Path | None:
    manifests = ((path, _manifest(path)) for path in reversed(_by_step(folder)))
    return next((path for path, manifest in manifests if manifest and manifest.healthy), None)


def newest(folder: Path, *, key: str, identity: Mapping[str, Any] = NOTHING) -> Path | None:
    """The newest checkpoint that verifies, or None; those that do not are put in quarantine.
    `identity` is what `key` digests."""
    for path in reversed(_by_step(folder)):
        problem = _problem(path, key, identity)
        if problem is None:
            return path
        _quarantine(path, problem)
    return None


def set_aside(folder: Path, problem: str) -> None:
    """Put all of them in quarantine: what they were made with is not known."""
    for path in _by_step(folder):
        _quarantine(path, problem)


def _quarantine(path: Path, problem: str) -> None:
    quarantine = path.parent / "quarantine"
    quarantine.mkdir(exist_ok=True)
    shutil.rmtree(quarantine / path.name, ignore_errors=True)
    path.rename(quarantine / path.name)
    LOG.warning("checkpoint %s is not used: %s; moved to %s", path.name, problem, quarantine)


def steps(folder: Path) -> list[int]:
    """Steps that have a committed checkpoint, ascending, unverified."""
    return [step_of(path) for path in _by_step(folder)]


def _by_step(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), key=step_of)


def step_of(path: Path) -> int:
    """The step of a committed checkpoint."""
    number = path.name.removeprefix("step-")
    return int(number) if number.isdecimal() else -1


def _manifest(path: Path) -> CheckpointManifest | None:
    try:
        return CheckpointManifest.model_validate_json((path / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def _problem(path: Path, key: str, identity: Mapping[str, Any] = NOTHING) -> str | None:
    try:
        text = (path / MANIFEST).read_bytes()
        manifest = CheckpointManifest.model_validate_json(text)
    except (OSError, ValidationError) as error:
        return f"its manifest is unreadable ({type(error).__name__})"
    if text != manifest.sealed().encode() or manifest.step != step_of(path):
        return "its manifest is not what was written"
    if manifest.key != key:
        changed = ", ".join(differences(manifest.identity, identity)) if identity else ""
        return f"it belongs to stage key {manifest.key}{changed and ', of another '}{changed}"
    for needed in NEEDED:
        if not any(name.startswith(needed) for name in manifest.files):
            return f"it has no {needed}"
    for name, record in manifest.files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != record.size or sha256(file) != record.sha256:
            return f"{name} is not what was written"
    return None
