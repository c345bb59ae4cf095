"""Plans and results as tables in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from aligntune.artifacts import Artifact
from aligntune.config.algo import ONLINE
from aligntune.console import clock, screen, table
from aligntune.estimate.device import Devices
from aligntune.findings import verdict
from aligntune.forecast import Forecast
from aligntune.paths import SQLITE, database_file, tracking_identity
from aligntune.plan import Plan
from aligntune.report.words import measure, signed, signed_span, span
from aligntune.run import Done
from aligntune.session import Session
from aligntune.show_forecast import forecast_record, show_forecasts
from aligntune.summary import aliases, decision, settled

SHOWN: dict[str, tuple[str, ...]] = {
    "model": (),
    "tokenizer": (),
    "data": ("rows_train", "rows_heldout"),
    "sft": ("train_loss", "final_loss", "rows"),
    "reference": ("rows_train", "rows_heldout"),
    "dpo": ("final_loss", "final_rewards/accuracies", "final_rewards/margins"),
    **dict.fromkeys(ONLINE, ("first_reward", "final_reward", "rows")),
    "evaluate": (
        *("exact_match", "exact_match/vs_base", "preference_accuracy", "nll", "reward"),
        "reward/vs_base",
    ),
    "reward": ("accuracy", "accuracy/low", "accuracy/high", "ece", "squared_error", "r2"),
    "fetch": (),
    "register": (),
    "register-reward": (),
    "decide": (),
    "promote": (),
    "push": (),
}
"""The metrics of each kind of stage that a person looks at first."""


def show_plan(plan: Plan, needed: Sequence[Forecast], on: Devices | None = None) -> None:
    """Its stages, and what those need that train."""
    rows = []
    for planned in plan.stages:
        stage = planned.stage
        state = "reuse" if planned.artifact else "run"
        inputs = ", ".join(stage.inputs) or "-"
        rows.append((stage.label, stage.name, state, planned.why, inputs))
    console = screen()
    columns = ("stage", "artifact", "", "why", "inputs")
    console.print(table(f"{plan.config.logging.run_name}", columns, rows))
    show_forecasts(console, needed, on)
    to_run = sum(planned.artifact is None for planned in plan.stages)
    console.print(f"\n{to_run} of {len(plan.stages)} stages to run")
    for name, where in (("artifacts", plan.paths.stages), ("run", plan.paths.run)):
        console.print(f"{name:<10} {from_here(where)}", highlight=False, soft_wrap=True)


def plan_record(plan: Plan, needed: Sequence[Forecast]) -> dict[str, Any]:
    """The plan as JSON values."""
    return {
        "run_name": plan.config.logging.run_name,
        "config": plan.config.model_dump(mode="json"),
        "stages": [
            {
                "label": planned.stage.label,
                "artifact": planned.stage.name,
                "reuse": planned.artifact is not None,
                "why": planned.why,
                "inputs": dict(planned.stage.inputs),
            }
            for planned in plan.stages
        ],
        "training": forecast_record(needed),
    }


def done_line(done: Done, artifact: Artifact) -> Text:
    """One finished stage: `sft            2:31  train_loss 0.41`."""
    mark, style = ("reused", "dim") if done.reused else (clock(done.seconds), "green")
    line = Text(f"{done.label:<14} ", style="bold")
    line.append(f"{mark:>8}  ", style=style)
    line.append(key_metrics(artifact))
    return line


def show_result(console: Console, session: Session) -> None:
    """The whole run as a table, and where to look."""
    rows = []
    for label, done in session.done.items():
        artifact = session.artifact(label)
        rows.append(
            (
                label,
                "-" if done.reused else clock(done.seconds),
                "reused" if done.reused else "run",
                key_metrics(artifact),
                (done.mlflow_run or "-")[:8],
                _version(artifact.manifest.facts, label, session),
            )
        )
    columns = ("stage", "time", "", "metrics", "mlflow run", "model version")
    console.print()
    console.print(table("", columns, rows))
    reused = sum(done.reused for done in session.done.values())
    what = "everything was reused" if reused == len(rows) else f"{reused} stages reused"
    console.print(f"\n{len(rows)} stages in {clock(session.seconds)}, {what}", highlight=False)
    if said := decision(session):
        console.print(said, highlight=False, soft_wrap=True)
    places = {
        "model": from_here(session.folder / "model"),
        "report": from_here(session.report),
        "mlflow": _store(session.context.tracking_uri),
    }
    for name, where in places.items():
        console.print(f"{name:<8} {where}", highlight=False, soft_wrap=True)


def result_record(session: Session) -> dict[str, Any]:
    """The same as JSON values, with every metric."""
    stages = [
        {
            "label": label,
            "artifact": session.artifact(label).name,
            "reused": done.reused,
            "seconds": done.seconds,
            "metrics": dict(session.artifact(label).manifest.metrics),
            "mlflow_run": done.mlflow_run,
        }
        for label, done in session.done.items()
    ]
    return {
        "stages": stages,
        "model": str(session.folder / "model"),
        "report": str(session.report),
        "versions": _versions(session),
        "decision": settled(session),
    }


def value_of(found: Mapping[str, Any] | None) -> str:
    """A measured metric as `58.3 % (48.5 to 67.7)`; a dash where it was not measured."""
    if found is None:
        return "-"
    unit = found["unit"]
    return f"{measure(found['mean'], unit)} ({span(found['low'], found['high'], unit)})"


def difference_of(found: Mapping[str, Any], other: str) -> str:
    """How it differs from `other`: `+2.1 (-1.0 to +5.2) inconclusive`."""
    against = found["against"].get(other)
    if against is None:
        return "-"
    unit = found["unit"]
    bounds = signed_span(against["low"], against["high"], unit)
    told = verdict(against["verdict"], found)
    return f"{signed(against['difference'], unit)} ({bounds}) {told}"


def from_here(path: Path) -> str:
    """Relative where it is below the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _versions(session: Session) -> Mapping[str, str]:
    if "register" not in session.done:
        return {}
    versions: Mapping[str, str] = session.artifact("register").manifest.facts["versions"]
    return versions


def _store(uri: str) -> str:
    file = database_file(uri)
    return f"{SQLITE}{from_here(file)}" if file else tracking_identity()


def _version(facts: Mapping[str, object], label: str, session: Session) -> str:
    """`name v3` for a stage whose model was registered."""
    stage = "register-reward" if label == "reward" else "register"
    if stage not in session.done:
        return "-"
    register = session.artifact(stage).manifest.facts
    version = register["versions"].get(label)
    if version is None:
        return "-"
    held_by = register["aliases"] | aliases(session)
    holds = [name for name, held in held_by.items() if held == version]
    return f"v{version}" + (f" ({', '.join(holds)})" if holds else "")


def key_metrics(artifact: Artifact) -> str:
    """The metrics a person looks at first, in one line."""
    metrics = artifact.manifest.metrics
    names = SHOWN[artifact.manifest.kind]
    shown = [f"{name} {metrics[name]:.4g}" for name in names if name in metrics]
    return "  ".join(shown)
