"""What a run would do, stage by stage: reuse or run, and why. Reads, never writes."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from aligntune import aliased
from aligntune.artifacts import Artifact, find, key_of
from aligntune.aside import promptly
from aligntune.config.base import Strict, identity
from aligntune.config.run import RunConfig
from aligntune.errors import ConfigError, ServiceError
from aligntune.paths import Paths, hub_endpoint, one_registry, tracking_identity, tracking_uri
from aligntune.pipeline import Champion, Step, final, steps
from aligntune.reasons import Earlier
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
    is_champion: bool | None = None
    """Whether the candidate is the champion as things are; None where the registry did not say."""

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

    Raises:
        ConfigError: a source is not as its settings say, or the registry is elsewhere.
    """
    paths = Paths.of(config)
    if config.registry.enabled and not only:
        one_registry(tracking_uri(paths.root))
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
    is_champion = None
    if config.registry.promotes:
        candidate = _resolved(every, resolved, paths.root)[
            [s.label for s in every].index(final(config))
        ]
        try:
            champion = _champion(config, paths.root)
        except ServiceError as error:  # no reason not to train: the stages that need it say so
            LOG.warning("nothing is known of a champion: %s", error)
        else:
            is_champion = champion is not None and champion.key == candidate.key
            against = champion.opponent(candidate.key) if champion else None
            every = lay_out(champion=Champion(*against) if against else None)
    return replace(planned(config, paths, every, resolved), is_champion=is_champion)


def planned(
    config: RunConfig,
    paths: Paths,
    every: Sequence[Step],
    resolved: Known | None = None,
) -> Plan:
    """The stages of these steps, each with its key and whether it exists."""
    earlier = Earlier(paths.stages)
    found = []
    for stage in _resolved(every, {} if resolved is None else resolved, paths.root):
        artifact = find(paths.stages, stage.kind, stage.key)
        if artifact:
            why = f"finished {artifact.manifest.finished}"
        else:
            why = earlier.why(stage.kind, stage.name, stage.identity)
        found.append(Planned(stage, artifact, why))
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


def _champion(config: RunConfig, root: Path) -> aliased.Version | None:
    """The champion by the registry.

    Raises:
        ServiceError: it does not answer.
    """
    uri, name = tracking_uri(root), policy_name(config)
    return promptly(partial(_known_here, uri, name), "MLflow is asked")


def _known_here(uri: str, name: str) -> aliased.Version | None:
    """The champion, from the registry's file if that can be read without MLflow."""
    try:
        return aliased.holder(uri, name, "champion")
    except aliased.Unreadable:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from aligntune.registry import champion_of

        return champion_of(uri, name)


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
