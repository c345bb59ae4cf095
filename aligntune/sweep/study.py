"""An Optuna study as the source of a sweep's combinations: TPE, resumed by the same command.

A trial is told what its run measured. One that was interrupted goes on with the next command, one
that failed is tried again. The sampler is seeded by the trial's number, so that a study that was
interrupted suggests what it would have suggested.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from aligntune.errors import ConfigError
from aligntune.sweep.axes import Axis
from aligntune.sweep.points import Point

if TYPE_CHECKING:
    from optuna import Study, Trial

INSTALL = "pip install 'aligntune-pipeline[optuna]'"


def check_installed() -> None:
    """Raises ConfigError where Optuna is not installed."""
    if find_spec("optuna") is None:
        raise ConfigError(f"--optuna needs Optuna, which is not installed; `{INSTALL}`")


def check_direction(metric: str) -> None:
    """Raises ConfigError for a metric whose direction is not known before it is measured."""
    if metric.startswith("lm_eval/"):
        raise ConfigError(
            f"--metric {metric}: whether more of it is better is known when it is measured, too "
            "late for --optuna; use --random, or another metric"
        )


def higher_is_better(metric: str) -> bool:
    """The direction of a metric that passes `check_direction`."""
    if metric == "reward" or metric.startswith("rewards/"):
        return True
    from aligntune.evaluate.metrics import METRICS

    return METRICS[metric].higher_is_better


@dataclass(frozen=True)
class Asked:
    """A trial to run."""

    point: Point
    tell: Callable[[float | None], None]
    """Takes what was measured; None where the run failed."""


def asked(
    axes: tuple[Axis, ...], metric: str, count: int, seed: int, file: Path
) -> Iterator[Asked]:
    """The trials of the study in the SQLite `file`, which is made where it is not there: those of
    earlier commands first, in their order, then as many as are left of `count`.

    A trial has to be told before the next one is asked for.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _opened(axes, metric, file)
    states = optuna.trial.TrialState
    known = study.get_trials(deepcopy=True)
    done = [trial.params for trial in known if trial.state in (states.COMPLETE, states.RUNNING)]
    for trial in known:
        if trial.state == states.FAIL and trial.params not in done:
            done.append(trial.params)
            study.enqueue_trial(trial.params)
    begun = 0
    for trial in known:
        if trial.state in (states.COMPLETE, states.RUNNING):
            begun += 1
            number = None if trial.state == states.COMPLETE else trial.number
            yield _asked(study, optuna.trial.Trial(study, trial._trial_id), axes, number)
    while begun < count:
        begun += 1
        # A sampler that goes on after an interruption would draw from its start again.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
        new = study.ask()
        yield _asked(study, new, axes, new.number)


def _opened(axes: tuple[Axis, ...], metric: str, file: Path) -> "Study":
    """The study; other values or another metric are another one in the same file."""
    import optuna

    digest = hashlib.sha256(repr((axes, metric)).encode()).hexdigest()[:8]
    file.parent.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=f"sqlite:///{file}",
        study_name=f"{metric} {digest}",
        direction="maximize" if higher_is_better(metric) else "minimize",
        load_if_exists=True,
    )


def _asked(study: "Study", trial: "Trial", axes: tuple[Axis, ...], number: int | None) -> Asked:
    from optuna.trial import TrialState

    def tell(value: float | None) -> None:
        if number is None:  # an earlier command told it
            return
        if value is None:
            study.tell(number, state=TrialState.FAIL)
        else:
            study.tell(number, value)

    return Asked({axis.key: _suggested(trial, axis) for axis in axes}, tell)


def _suggested(trial: "Trial", axis: Axis) -> str:
    span = axis.span
    if span is None:
        return str(trial.suggest_categorical(axis.key, axis.values))
    if span.kind == "int":
        return span.text(trial.suggest_int(axis.key, int(span.low), int(span.high)))
    return span.text(trial.suggest_float(axis.key, span.low, span.high, log=span.kind == "log"))
