"""Models measured alone: the data and evaluation stages of a config, on any model.

The stages are those of a run, so what a run has measured is reused, and the other way round.
"""

import json
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.console import Console

from aligntune.config.run import RunConfig
from aligntune.config.slices import FetchSlice, ModelSlice
from aligntune.console import configure, screen, table
from aligntune.direct import run_stages
from aligntune.errors import ConfigError, unknown
from aligntune.interrupt import stop_on_signals
from aligntune.paths import Paths, hub_endpoint, tracking_identity, tracking_uri
from aligntune.pipeline import Step, evaluation_of, steps
from aligntune.plan import needed, planned
from aligntune.session import Session, preparing
from aligntune.show import difference_of, value_of

BASE = "base"


def evaluate_model(
    config: RunConfig, command: str, model: str, against: Sequence[str], *, as_json: bool = False
) -> None:
    """Measure `model` on the held-out data of `config`, compare it with each of `against`, and
    print every metric with its interval.

    A model is `base` (where the config starts from), a run's name, `models:/name@alias`,
    `models:/name/version`, a directory or a hub id.

    Raises:
        AlignTuneError: a stage failed or was asked to stop; finished stages are kept.
    """
    console = screen(stderr=as_json)
    configure(config.logging.level, console)
    paths = Paths.of(config)
    others = [other for other in dict.fromkeys(against) if other != model]
    labels = _labels([*others, model])
    wanted = planned(config, paths, _steps(config, paths.root, labels))
    with stop_on_signals() as stopping, preparing(wanted, command, "evaluation") as session:
        run_stages(config, console, session, stopping)
    found = {name: _measured(session, label) for name, label in labels.items()}
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        _show(console, found, model, [labels[other] for other in others])


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Model -> what its stages are called."""
    labels: dict[str, str] = {}
    for name in names:
        short = re.split(r"[/\\]", name.rstrip("/"))[-1]
        label = re.sub(r"[^A-Za-z0-9_]+", "-", short).strip("-")[:40] or "model"
        taken = {*labels.values(), "model", "data", "tokenizer"}
        labels[name] = label if label not in taken else f"{label}-{len(labels) + 1}"
    return labels


def _steps(config: RunConfig, root: Path, labels: dict[str, str]) -> list[Step]:
    every = steps(config, tracking_uri=tracking_identity(), hub_endpoint=hub_endpoint())
    made = needed(every, {"evaluate-base"})
    if BASE not in labels:
        made = [step for step in made if step.label != "evaluate-base"]
    earlier: dict[str, str] = {}
    for name, label in labels.items():
        if name != BASE:
            made.append(_model(config, name, label, root))
            made.append(evaluation_of(config, label, label, earlier))
        earlier[label] = f"evaluate-{label}"
    return made


def _model(config: RunConfig, name: str, label: str, root: Path) -> Step:
    """The stage that gets a model."""
    if name.startswith("models:"):
        from aligntune.registered import registered

        found = registered(name, tracking_uri(root))
        spec = FetchSlice(
            name=found.name,
            version=found.version,
            key=found.digest,
            tracking_uri=tracking_identity(),
        )
        return Step(label, "fetch", spec)
    run, known = root / "runs" / name, [path.name for path in (root / "runs").glob("*/")]
    if name not in known and get_close_matches(name, known) and not Path(name).exists():
        # A hub that is away would be asked for minutes.
        raise ConfigError(unknown("run", name, known))
    if name in known:
        if not (run / "model").exists():
            raise ConfigError(f"run {name!r} has no model yet; run it to its end first")
        name = str((run / "model").resolve())
    return Step(
        label,
        "model",
        ModelSlice(
            name_or_path=name,
            revision=None,
            chat_template=config.model.chat_template,
            trust_remote_code=config.model.trust_remote_code,
        ),
    )


def _measured(session: Session, label: str) -> dict[str, Any]:
    artifact = session.artifact(f"evaluate-{label}")
    speed = artifact.manifest.metrics.get("tokens_per_second")
    return {"stage": artifact.name, **artifact.read("evaluation.json"), "tokens_per_second": speed}


def _show(console: Console, found: dict[str, Any], model: str, others: Sequence[str]) -> None:
    """A line per metric: each model's mean and interval, and how the last one differs."""
    metrics = found[model]["metrics"]
    rows = []
    for name, own in metrics.items():
        values = [value_of(one["metrics"].get(name)) for one in found.values()]
        differences = [difference_of(own, other) for other in others]
        rows.append((name, own["count"], *values, *differences))
    names = [re.split(r"[/\\]", name.rstrip("/"))[-1] for name in found]
    columns = ("metric", "prompts", *names, *(f"vs {other}" for other in others))
    confidence = found[model]["intervals"]["confidence"]
    console.print()
    console.print(table("", columns, rows))
    console.print(
        f"\nmean (interval at {100 * confidence:g} %), differences paired by prompt",
        highlight=False,
    )
