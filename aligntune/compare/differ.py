"""In which settings, data and stages runs differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aligntune.compare.history import PastRun, PastStage
from aligntune.identity import differences
from aligntune.report.compared import Change, DataChange, DataSide, StageChange

REASONS = 4
"""So many of the fields that make two stages different are named."""


def config(runs: Sequence[PastRun]) -> tuple[Change, ...]:
    """The settings that are not the same everywhere; unset and null are the same.

    A section that only some runs have, and these alike, is one change.
    """
    sides = [run.settings for run in runs]
    found: dict[str, Change] = {}
    for path in sorted(dict.fromkeys(path for side in sides for path in side)):
        values = [side.get(path) for side in sides]
        if all(value == values[0] for value in values):
            continue
        section = path.partition(".")[0]
        parts = [_below(side, section) for side in sides]
        there = [part for part in parts if part]
        if section != path and {} in parts and all(part == there[0] for part in there):
            found[section] = Change(section, tuple(_lines(part) for part in parts))
        else:
            found[path] = Change(path, tuple(_shown(value) for value in values))
    return tuple(found.values())


def _below(settings: Mapping[str, Any], section: str) -> dict[str, Any]:
    """What is set in a section."""
    prefix = f"{section}."
    return {
        path.removeprefix(prefix): value
        for path, value in settings.items()
        if path.startswith(prefix) and value is not None
    }


def _lines(settings: Mapping[str, Any]) -> str | None:
    return "\n".join(f"{path}: {_shown(value)}" for path, value in settings.items()) or None


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def data(runs: Sequence[PastRun]) -> tuple[DataChange, ...]:
    """Every split of every data stage that some run has."""
    stages = [{stage.label: stage for stage in run.stages if _is_data(stage)} for run in runs]
    found = []
    for label in dict.fromkeys(label for of_run in stages for label in of_run):
        sides = [_sides(of_run.get(label)) for of_run in stages]
        for split in dict.fromkeys(split for side in sides for split in side):
            row = tuple(side.get(split) for side in sides)
            same = None not in row and len({side.digest for side in row if side}) == 1
            found.append(DataChange(label, split, row, same))
    return tuple(found)


def _is_data(stage: PastStage) -> bool:
    return stage.artifact.startswith("data-")


def _sides(stage: PastStage | None) -> dict[str, DataSide]:
    if stage is None or stage.made is None:
        return {}
    manifest = stage.made.manifest
    sources = "; ".join(_source(source) for source in manifest.facts["sources"])
    return {
        split: DataSide(int(manifest.metrics[f"rows_{split}"]), str(digest), sources)
        for split, digest in manifest.facts["digests"].items()
    }


def _source(source: dict[str, Any]) -> str:
    name = " ".join(str(source[part]) for part in ("name", "subset") if source.get(part))
    split = "" if source.get("split") in (None, "train") else f" [{source['split']}]"
    return f"{name}{split} ({int(source['kept']):,} rows)"


def stages(runs: Sequence[PastRun]) -> tuple[StageChange, ...]:
    """Every stage that some run has, with what makes the others' another one than the first's."""
    found = []
    for label in dict.fromkeys(stage.label for run in runs for stage in run.stages):
        of_label = [run[label] for run in runs]
        names = tuple(stage.artifact if stage else None for stage in of_label)
        there = [stage for stage in of_label if stage]
        same = None not in names and len(set(names)) == 1
        found.append(StageChange(label, names, same, _why(there)))
    return tuple(found)


def _why(stages: Sequence[PastStage]) -> str:
    by_name = {stage.artifact: stage.made.manifest.identity for stage in stages if stage.made}
    known = list(by_name.values())
    fields = dict.fromkeys(
        field for identity in known[1:] for field in differences(known[0], identity)
    )
    shown = list(fields)[:REASONS]
    more = len(fields) - len(shown)
    return ", ".join(shown + ([f"{more} more"] if more else []))
