"""How the runs of a sweep are chosen, from what was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aligntune.errors import ConfigError
from aligntune.sweep import points, study
from aligntune.sweep.axes import space
from aligntune.sweep.runs import Sweep, sweep


@dataclass(frozen=True)
class Choice:
    drawn: int | None = None
    """So many combinations at random."""
    trials: int | None = None
    """So many that Optuna chooses by what the ones before came to."""
    metric: str | None = None
    seed: int = 0


def chosen(paths: Sequence[Path], overrides: Sequence[str], choice: Choice) -> Sweep:
    """The sweep that is meant, checked.

    Raises:
        ConfigError: as `space`, `grid` and `sweep`; or Optuna is not installed.
    """
    if choice.drawn and choice.trials:
        raise ConfigError("--random and --optuna are two ways to choose; give one of them")
    if choice.trials:
        study.check_installed()
    varied = space(overrides)
    if choice.trials:
        found = points.probes(varied.axes)
    elif choice.drawn:
        found = points.drawn(varied.axes, choice.drawn, choice.seed)
    else:
        found = points.grid(varied.axes)
    made = sweep(paths, varied, found, choice.metric, trials=choice.trials, seed=choice.seed)
    if choice.trials:
        if made.metric is None:
            raise ConfigError(
                "--optuna needs to know what is better; give --metric, such as exact_match"
            )
        study.check_direction(made.metric)
    return made
