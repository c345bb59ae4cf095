"""What a run would do, stage by stage: reuse or run, and why. Reads, never writes."""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aligntune.artifacts import MANIFEST, WORK, Artifact, Manifest, find, key_of
from aligntune.config.base import Strict, identity
from aligntune.config.run import RunConfig
from aligntune.errors import ConfigError, ServiceError
from aligntune.identity import differences
from aligntune.paths import Paths, hub_endpoint, tracking_identity, tracking_uri
from aligntune.pipeline import Champion, Step, final, steps
from aligntune.slicing import policy_name
from aligntune.stages import KINDS, environment

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One stage with everything that identifies its result."""

    label: str
    kind: str
    key: str
    config: Strict
    sources: Mapping[str, str]
    inputs: Mapping[str, str]
    """Role -> `<kind>-<key>`: the names of the artifacts it reads."""
    identity: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its artifact's name."""
        return f"{self.kind}-{self.key}"


Known = dict[str, tuple[Step, Stage]]
"""Label -> the step and what became of it."""


@dataclass(frozen=True)
class Planned:
    stage: Stage
    artifact: Artifact | None
    """What will be reused, or None if the stage will run."""
    why: str


@dataclass(frozen=True)
class Plan:
    config: RunConfig
    paths: Paths
    stages: tuple[Planned, ...]

    def __getitem__(self, label: str) -> Planned:
        return next(planned for planned in self.stages if planned.stage.label == label)


def plan(
    config: RunConfig,
    only: str | None = None,
    start: Champion | None = None,
    known: Known | None = None,
) -> Plan:
    """The stages of `config` in order, each with its key and whether it exists; with `only`, those
    of that kind and what they read; with `start`, of a training that goes on from that version.
    `known` are the stages of the plan before, whose sources are not read again where they are the
    same, and is changed to those of this one.

    Asks the hub for commits where a source is there; imports no torch.
    """
    paths = Paths.of(config)
    lay_out = partial(
        steps,
        config,
        tracking_uri=tracking_identity(),
        hub_endpoint=hub_endpoint(),
        start=start,
    )
    every = lay_out()
    if only:
        return planned(config, paths, needed(every, {s.label for s in every if s.kind == only}))
    resolved: Known = {} if known is None else known
    if config.registry.promotes:
        candidate = _resolved(every, resolved, paths.root)[
            [s.label for s in every].index(final(config))
        ]
        champion = _champion(config, paths.root, candidate.key)
        every = lay_out(champion=champion)
    return planned(config, paths, every, resolved)


def planned(
    config: RunConfig,
    paths: Paths,
    every: Sequence[Step],
    resolved: Known | None = None,
) -> Plan:
    """The stages of these steps, each with its key and whether it exists."""
    there = _known(paths.stages)
    found = []
    for stage in _resolved(every, {} if resolved is None else resolved, paths.root):
        artifact = find(paths.stages, stage.kind, stage.key)
        found.append(Planned(stage, artifact, _why(stage, artifact, paths.stages, there)))
    return Plan(config, paths, tuple(found))


def _resolved(every: Sequence[Step], known: Known, root: Path) -> list[Stage]:
    """The stages of steps in order. What `known` has of the same step is taken from there, since
    sources are read and servers asked for a key; the rest is added to it."""
    done: dict[str, Stage] = {}
    for step in every:
        inputs = {role: done[label].name for role, label in step.inputs.items()}
        before, stage = known.get(step.label, (None, None))
        if before != step or stage is None or stage.inputs != inputs:
            stage = resolve(step, inputs, root)
        known[step.label] = step, stage
        done[step.label] = stage
    return list(done.values())


def _champion(config: RunConfig, root: Path, candidate: str) -> Champion | None:
    """What the candidate with that key is to be compared with, by the registry.

    One that does not answer is no reason not to train: the stages that need it say so.
    """
    uri = tracking_uri(root)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return None
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from aligntune.registry import champion_for

    try:
        found = champion_for(uri, policy_name(config), candidate)
    except ServiceError as error:
        LOG.warning("nothing is known of a champion: %s", error)
        return None
    return Champion(*found) if found else None


def needed(every: Sequence[Step], wanted: set[str]) -> list[Step]:
    """The steps with these labels, and what they read."""
    wanted = set(wanted)
    for step in reversed(every):  # a step comes after its inputs
        if step.label in wanted:
            wanted |= set(step.inputs.values())
    return [step for step in every if step.label in wanted]


def resolve(step: Step, inputs: Mapping[str, str], root: Path) -> Stage:
    """A step with what identifies its result; `inputs` are names of artifacts by role."""
    kind = KINDS[step.kind]
    try:
        sources = kind.sources(step.config, root)
    except ConfigError as error:
        raise ConfigError(f"{step.label}: {error}") from error
    parts = {
        "kind": step.kind,
        "version": kind.version,
        "config": identity(step.config),
        "sources": sources,
        "inputs": dict(inputs),
        "environment": environment(kind),
    }
    return Stage(
        label=step.label,
        kind=step.kind,
        key=key_of(parts),
        config=step.config,
        sources=sources,
        inputs=inputs,
        identity=json.loads(json.dumps(parts)),
    )


def _why(stage: Stage, artifact: Artifact | None, root: Path, known: Iterable["_Known"]) -> str:
    if artifact:
        return f"finished {artifact.manifest.finished}"
    if steps_done := _checkpointed(root / f"{stage.name}.partial"):
        return f"continues from step {max(steps_done)}"
    alike = [(differences(k.identity, stage.identity), k) for k in known if k.kind == stage.kind]
    if not alike:
        return "not done yet"
    changed, nearest = min(alike, key=lambda found: len(found[0]))
    shown = changed[:3] + ([f"{len(changed) - 3} more"] if len(changed) > 3 else [])
    why = ", ".join(shown) + " changed"
    return why if nearest.step is None else f"{why}; step {nearest.step} of before is not continued"


def _checkpointed(partial: Path) -> list[int]:
    names = (partial / WORK / "checkpoints").glob("step-*")
    return [int(path.name.removeprefix("step-")) for path in names]


@dataclass(frozen=True)
class _Known:
    """A stage that was finished, or that has a checkpoint."""

    kind: str
    identity: Mapping[str, Any]
    step: int | None = None
    """Of the newest checkpoint."""


def _known(root: Path) -> list[_Known]:
    found = []
    for path in sorted(root.glob(f"*/{MANIFEST}")):
        with suppress(ValidationError):  # find() sets it aside when its stage is asked for
            made = Manifest.model_validate_json(path.read_bytes())
            found.append(_Known(made.kind, made.identity))
    for folder in sorted(root.glob("*.partial")):
        if steps_done := _checkpointed(folder):
            newest = folder / WORK / "checkpoints" / f"step-{max(steps_done):06d}" / MANIFEST
            with suppress(OSError, ValueError, KeyError, TypeError):  # the stage will say so
                identity = json.loads(newest.read_bytes())["identity"]
                kind = folder.name.rpartition("-")[0]
                found.append(_Known(kind, dict(identity), max(steps_done)))
    return found
