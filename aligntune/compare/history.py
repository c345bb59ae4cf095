"""A run of the past, as its directory tells it; nothing else is asked."""

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from aligntune.artifacts import Artifact, find_named
from aligntune.config.document import read_document
from aligntune.config.naming import printable
from aligntune.errors import ConfigError, DataError
from aligntune.identity import flat

LOG = logging.getLogger(__name__)
Find = Callable[[Path, str], Artifact | None]
EVALUATE = "evaluate-"
"""What the labels of evaluations begin with; the model's label follows."""
RECORD = "mlflow.json"
"""Where a run remembers its record in the outbox."""


@dataclass(frozen=True)
class PastStage:
    label: str
    artifact: str
    """`<kind>-<key>`."""
    made: Artifact | None = None
    """None where it is not finished, or is only known by what MLflow has of it."""
    recorded: str | None = None
    """The MLflow run that has its curves, where the artifact is out of reach."""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PastRun:
    name: str
    config: Mapping[str, Any]
    stages: tuple[PastStage, ...]
    state: str
    """finished, running, failed, stopped, or unfinished: then nothing says why."""
    when: str
    """When it was started last, as `2026-01-31 09:05:00 UTC`."""
    folder: Path | None = None
    """None of a run that only MLflow knows."""
    error: str = ""
    """What stopped it."""
    record: str | None = None
    """What its MLflow run has as tag `aligntune.id`."""

    def __getitem__(self, label: str) -> PastStage | None:
        return next((stage for stage in self.stages if stage.label == label), None)

    @property
    def algo(self) -> str:
        return str(self.config.get("algo", "?"))

    @property
    def model(self) -> str:
        """What training started from."""
        model = self.config.get("model")
        if not isinstance(model, Mapping):
            return "?"
        return str(model.get("sft_path") or model.get("name_or_path") or "?")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted path -> value; the name is none of them."""
        return {
            name: value
            for name, value in flat(self.config).items()
            if name not in ("logging.run_name", "logging.output_dir")
        }

    @property
    def evaluation(self) -> PastStage | None:
        """The evaluation of the model that is the run's result, if it got so far."""
        return self[f"{EVALUATE}{self.algo}"]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """`dpo/final_loss`, `base/exact_match`, and the result's evaluation without a prefix."""
        found: dict[str, float] = {}
        for stage in self.stages:
            prefix = stage.label.removeprefix(EVALUATE)
            found |= {f"{prefix}/{name}": value for name, value in stage.metrics.items()}
        return found | dict(self.evaluation.metrics if self.evaluation else {})

    @property
    def decision(self) -> str:
        """promote, reject or inconclusive; empty where nothing was decided."""
        return str(self._decided().get("verdict", ""))

    @property
    def why(self) -> str:
        """The sentence that says why it was decided so."""
        return str(self._decided().get("why", ""))

    def _decided(self) -> Mapping[str, Any]:
        stages = (self["promote"], self["decide"])
        return next((stage.made.manifest.facts for stage in stages if stage and stage.made), {})

    @cached_property
    def registered(self) -> Mapping[str, Any]:
        """The facts of its registration: `registered_model`, `versions`, `aliases`."""
        stage = self["register"]
        return stage.made.manifest.facts if stage and stage.made else {}

    @property
    def version(self) -> str:
        """`v3 (candidate)`: what its result is in the registry, as it was when it got there."""
        number = self.registered.get("versions", {}).get(self.algo)
        aliases = self.registered.get("aliases", {}) | self._decided().get("aliases", {})
        held = [alias for alias, version in aliases.items() if version == number]
        return f"v{number}" + (f" ({', '.join(held)})" if held else "") if number else ""


def run_at(folder: Path, found: Find = find_named) -> PastRun:
    """The run in `folder`, its artifacts as `found` finds them.

    Raises:
        ConfigError: its config cannot be read.
        DataError: it holds none, or what it holds cannot be read.
    """
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        root = folder.parent.parent / "stages"
        stages = tuple(_stage(root, str(r["stage"]), str(r["artifact"]), found) for r in plan)
        began = (folder / "plan.json").stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{folder} holds no run; name a directory with a config.yaml and a plan.json"
        ) from None
    config = read_document(folder / "config.yaml").values
    run = PastRun(folder.name, config, stages, "", _moment(began), folder)
    return replace(_with_status(run), record=_remembered(folder))


def runs_below(output: Path) -> Iterator[PastRun]:
    """Every run whose directory is in `<output>/runs`, in no order; what is none is left out, and
    so is what cannot be read, with a warning."""
    found = cache(find_named)  # runs share most of their stages
    for folder in sorted((output / "runs").glob("*/")):
        if (folder / "plan.json").exists() and (folder / "config.yaml").exists():
            try:
                yield run_at(folder, found)
            except (ConfigError, DataError) as error:
                LOG.warning("run %s is left out: %s", printable(folder.name), error)


def _stage(root: Path, label: str, name: str, found: Find) -> PastStage:
    made = found(root, name) if _plain(name) else None
    return PastStage(label, name, made, None, made.manifest.metrics if made else {})


def _plain(name: str) -> bool:
    return "/" not in name and "\\" not in name and not name.startswith(".")


def _remembered(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / RECORD).read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _with_status(run: PastRun) -> PastRun:
    """`run` with what its process wrote of how it went, checked against what is there."""
    assert run.folder is not None
    whole = all(stage.made for stage in run.stages)
    try:
        told = json.loads((run.folder / "status.json").read_text(encoding="utf-8"))
        state, when = str(told["state"]), str(told["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return replace(run, state="finished" if whole else "unfinished")
    if state == "running" and not _alive(told):
        state = "stopped"
    if state == "finished" and not whole:  # artifacts were removed since
        state = "unfinished"
    return replace(run, state=state, when=when, error=str(told.get("error", "")))


def _alive(told: Mapping[str, Any]) -> bool:
    if told.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(told["pid"]), 0)
    except (ProcessLookupError, KeyError, TypeError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _moment(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
