"""What a stage is given, and what there is to know of a kind of stage."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from aligntune.artifacts import Artifact
from aligntune.config.base import Strict
from aligntune.heartbeat import Progress

C = TypeVar("C", bound=Strict, covariant=True)


@dataclass(frozen=True)
class Work(Generic[C]):
    """One stage's job, by its kind's config slice."""

    key: str
    config: C
    sources: Mapping[str, str]
    """Digests and commits of what lies outside the artifacts, as the key has them."""
    inputs: Mapping[str, Artifact]
    out: Path
    """The directory to write to; `out/work` is scratch that survives an interruption."""
    root: Path
    """`logging.output_dir`."""
    tracking_uri: str = field(repr=False)  # may have a password in it
    progress: Progress
    stopping: Callable[[], bool]
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What the key digests."""


@dataclass(frozen=True)
class Outcome:
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """What there is to know about a kind of stage besides its config."""

    version: int
    """Raised when the code changes what the stage produces, so that no older artifact is reused."""
    config: type[Strict]
    run: Callable[[Any], Outcome]
    sources: Callable[[Any, Path], dict[str, str]] = lambda config, root: {}
    """Digests of what the stage reads besides its inputs, for a run below the output directory
    `root`. May ask the hub or the registry."""
    libraries: tuple[str, ...] = ()
    """Packages whose minor version can change the result."""
    trains: bool = False
    """Holds a model and gradients: a process of its own in a flow."""
    network: bool = False
    """Talks to a server, so a failure may pass by itself."""


def emptied(folder: Path) -> Path:
    """What an interrupted attempt left half written goes away."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder
