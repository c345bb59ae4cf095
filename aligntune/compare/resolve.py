"""Which run a person means: a name, a directory, or an MLflow run id."""

import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aligntune.artifacts import find_named
from aligntune.compare.filters import chosen
from aligntune.compare.history import PastRun, PastStage, run_at, runs_below
from aligntune.errors import ConfigError, unknown
from aligntune.paths import database_file, tracking_uri
from aligntune.recorded import RecordedRun, recorded_run

RUN_ID = re.compile(r"[0-9a-f]{32}")
STATES = {"FINISHED": "finished", "RUNNING": "running", "FAILED": "failed", "KILLED": "stopped"}


def resolved(names: Sequence[str], conditions: Sequence[str], output: Path) -> list[PastRun]:
    """The runs of these names in their order, then those below `output` that `conditions` hold
    for, newest first; each once.

    Raises:
        ConfigError: a name is none, or a condition is none.
    """
    runs = [named(name, output) for name in names]
    if conditions:
        runs += listed(output, conditions)
    return list({run.folder or run.record: run for run in runs}.values())


def listed(output: Path, conditions: Sequence[str]) -> list[PastRun]:
    """The runs below `output` for which all conditions hold, newest first."""
    runs = sorted(runs_below(output), key=lambda run: (run.when, run.name), reverse=True)
    return chosen(runs, conditions)


def named(name: str, output: Path) -> PastRun:
    """The run that `name` is for."""
    for folder in (output / "runs" / name, Path(name)):
        if (folder / "plan.json").is_file():
            return run_at(folder.absolute())
    if RUN_ID.fullmatch(name):
        return _by_id(name, output)
    if (output / "runs" / name).is_dir():
        raise ConfigError(
            f"run {name!r} below {output} has not been trained yet, so there is nothing to compare"
        )
    known = [folder.parent.name for folder in (output / "runs").glob("*/plan.json")]
    if not known:
        raise ConfigError(
            f"there is no run {name!r} below {output}; give --output-dir, a run's directory, or "
            "an MLflow run id"
        )
    raise ConfigError(f"below {output}: {unknown('run', name, known)}")


def _by_id(run_id: str, output: Path) -> PastRun:
    uri = tracking_uri(output.absolute())
    file = database_file(uri)
    if file and not file.is_file():
        raise ConfigError(
            f"there is no {file} to ask for run {run_id!r}; give --output-dir or set "
            "MLFLOW_TRACKING_URI"
        )
    recorded = recorded_run(run_id, uri)
    for root in _roots(recorded, output):
        for run in runs_below(root):
            if run.record and run.record == recorded.tags.get("aligntune.id"):
                return run
    return from_mlflow(recorded, output)


def _roots(recorded: RecordedRun, output: Path) -> list[Path]:
    """Where its artifacts may be."""
    place = recorded.params.get("logging.output_dir")
    return [output.absolute()] + ([Path(os.path.expanduser(place)).absolute()] if place else [])


def from_mlflow(recorded: RecordedRun, output: Path) -> PastRun:
    """A run by what was logged of it, with those of its artifacts that can be reached."""
    config = _nested({name: _value(text) for name, text in recorded.params.items()})
    roots = _roots(recorded, output)
    stages: dict[str, PastStage] = {}
    for stage in recorded.stages:
        label = stage.tags.get("aligntune.stage", stage.name)
        if stage.status == "FINISHED" or label not in stages:
            stages[label] = _stage(label, stage, roots)
    when = datetime.fromtimestamp(recorded.started / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return PastRun(
        recorded.name, config, tuple(stages.values()), STATES.get(recorded.status, "unfinished"),
        when, record=recorded.tags.get("aligntune.id", recorded.run_id),
    )  # fmt: skip


def _stage(label: str, recorded: RecordedRun, roots: Sequence[Path]) -> PastStage:
    name = recorded.tags.get("aligntune.artifact", "")
    places = (find_named(root / "stages", name) for root in roots)
    made = next((found for found in places if found), None) if "/" not in name else None
    source = recorded.tags.get("aligntune.cached_from") or recorded.run_id
    return PastStage(label, name, made, source, made.manifest.metrics if made else recorded.metrics)


def _value(text: str) -> Any:
    """What `track` wrote as `text`."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _nested(params: dict[str, Any]) -> dict[str, Any]:
    """{"a.0.b": 1} -> {"a": {"0": {"b": 1}}}: a list's items stay under their numbers."""
    made: dict[str, Any] = {}
    for path, value in params.items():
        *above, last = path.split(".")
        inside = made
        for part in above:
            inside = inside.setdefault(part, {})
            if not isinstance(inside, dict):
                break
        else:
            inside[last] = value
    return made
