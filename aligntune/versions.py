"""What is in the registry: versions of models, where they came from and what was decided."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aligntune.artifacts import Manifest
from aligntune.console import figure, screen, table
from aligntune.errors import DataError, unknown
from aligntune.paths import Place, database_file, one_registry, tracking_uri

METRICS = ("exact_match", "preference_accuracy", "reward", "nll", "accuracy")
"""Looked at first; others only where none of these is there."""
MOST = 3


@dataclass(frozen=True)
class Version:
    version: str
    aliases: tuple[str, ...]
    algorithm: str
    parent: str | None
    """The version that its training started from."""
    metrics: dict[str, float]
    decision: str
    """promote, reject, inconclusive; empty where nothing was decided."""
    why: str
    promoted: str
    """When and by what it became champion."""
    artifact: str
    created: int
    """Milliseconds since 1970."""


@dataclass(frozen=True)
class Model:
    name: str
    versions: tuple[Version, ...]
    """From first to last."""

    def record(self) -> dict[str, Any]:
        return asdict(self)

    def tree(self) -> Iterator[tuple[int, Version]]:
        """(depth, version): each after what it was trained from."""

        def below(parent: str | None, depth: int) -> Iterator[tuple[int, Version]]:
            for version in self.versions:
                if (version.parent if version.parent in known else None) == parent:
                    yield depth, version
                    yield from below(version.version, depth + 1)

        known = {version.version for version in self.versions}
        yield from below(None, 0)


def place(output_dir: str) -> Place:
    """The registry of an output directory."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    root = Path(os.path.expanduser(output_dir)).absolute()
    uri = tracking_uri(root)
    one_registry(uri)
    file = database_file(uri)
    if file and not file.exists():
        raise DataError(
            f"there is no registry at {uri}; name the output directory with --output-dir, or set "
            "MLFLOW_TRACKING_URI"
        )
    return Place(uri, root)


def listed(where: Place, name: str | None) -> list[Model]:
    """Every registered model of ours, or the one called `name`.

    Raises:
        DataError: there is no such model.
        ServiceError: the registry failed.
    """
    from aligntune.registry import all_versions

    found = all_versions(where.uri)
    if name is not None and name not in found:
        raise DataError(unknown("registered model", name, found) if found else _none(where))
    return [
        Model(model, tuple(Version(**version) for version in versions))
        for model, versions in found.items()
        if name in (None, model)
    ]


def named(where: Place, name: str | None) -> str:
    """`name`, or the only registered policy there is."""
    if name is not None:
        return name
    found = [model.name for model in listed(where, None) if not model.name.endswith(".reward")]
    if len(found) != 1:
        what = f"there are {', '.join(found)}; choose one with --name" if found else _none(where)
        raise DataError(what)
    return found[0]


def candidate_of(where: Place, run: str) -> tuple[str, str]:
    """The registered model and version of what a run trained last."""
    folder = where.root / "runs" / run
    known = sorted(path.name for path in (where.root / "runs").glob("*") if path.is_dir())
    if not folder.is_dir():
        raise DataError(unknown("run", run, known) if known else f"no run below {where.root}")
    try:
        text = (folder / "stages" / "register" / "manifest.json").read_bytes()
        facts = Manifest.model_validate_json(text).facts
    except (OSError, ValueError) as error:
        raise DataError(f"run {run!r} has registered nothing; run it to its end first") from error
    return str(facts["registered_model"]), str(list(facts["versions"].values())[-1])


def show(models: Sequence[Model]) -> None:
    """A table per model; a version stands below what it was trained from."""
    console = screen()
    if not models:
        console.print("nothing is registered yet; a run registers what it trains")
    for model in models:
        names = {name for version in model.versions for name in version.metrics}
        metrics = [name for name in METRICS if name in names] or sorted(names)
        rows = [
            (
                f"{'  ' * depth}v{version.version}",
                version.algorithm,
                ", ".join(version.aliases) or "-",
                *(figure(version.metrics.get(name)) for name in metrics[:MOST]),
                version.decision or "-",
                version.why or "-",
            )
            for depth, version in model.tree()
        ]
        columns = ("version", "algorithm", "aliases", *metrics[:MOST], "decision", "why")
        console.print(table(model.name, columns, rows))
        console.print()


def _none(where: Place) -> str:
    return f"nothing is registered at {where.root}; a run registers what it trains"
