"""The runs of a sweep: each a config of its own, all checked before the first one starts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from aligntune import needs
from aligntune.check import warned
from aligntune.cli_config import command_line
from aligntune.compare.history import EVALUATE
from aligntune.compare.instruments import instrument
from aligntune.config.evaluation import Metric, Registry
from aligntune.config.load import read
from aligntune.config.run import RunConfig
from aligntune.errors import ConfigError, unknown
from aligntune.identity import differences
from aligntune.paths import Paths
from aligntune.plan import Known, Plan, plan
from aligntune.sweep import points
from aligntune.sweep.axes import Axis, Space
from aligntune.sweep.points import Point, said

EXPLORES = ("registry.enabled=false", "logging.push_to_hub=false")
"""What is different in a run of a sweep: it ends with its evaluation."""


@dataclass(frozen=True)
class Run:
    name: str
    point: Point
    overrides: tuple[str, ...]
    config: RunConfig
    registry: Registry
    """As the config has it."""

    @property
    def registered(self) -> tuple[str, ...]:
        """The overrides of the same run with its registration; it does not promote itself."""
        kept = tuple(override for override in self.overrides if override != EXPLORES[0])
        return (*kept, "registry.promote=manual") if self.registry.promote == "auto" else kept


@dataclass(frozen=True)
class Sweep:
    name: str
    paths: tuple[Path, ...]
    space: Space
    runs: tuple[Run, ...]
    """All of them; of a study, which chooses as it goes, some that stand for all."""
    metric: str | None
    """What says which run is best; None is the first quality metric that is measured."""
    trials: int | None = None
    """How many a study chooses."""
    seed: int = 0
    """Of what is drawn."""
    notes: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.space.axes

    @property
    def root(self) -> Path:
        return Paths.of(self.runs[0].config).root

    @property
    def folder(self) -> Path:
        """What it leaves behind beside its runs."""
        return self.root / "sweeps" / self.name

    @property
    def size(self) -> int:
        return self.trials or len(self.runs)

    def run(self, point: Point) -> Run:
        """The run of one more combination. ConfigError where it is none."""
        return _run(self.paths, self.space, point)[0]

    def command(self, overrides: tuple[str, ...]) -> str:
        """What makes one of its runs by itself."""
        return command_line("train", self.paths, overrides)


def sweep(
    paths: Sequence[Path],
    space: Space,
    chosen: Sequence[Point],
    metric: str | None,
    *,
    trials: int | None = None,
    seed: int = 0,
) -> Sweep:
    """The sweep of the `chosen` combinations.

    Raises:
        ConfigError: all that is wrong with any of them, each problem with the combinations that
            have it.
    """
    runs: list[Run] = []
    notes: dict[str, None] = {}
    wrong: dict[str, list[Point]] = {}
    for point in chosen:
        try:
            run, said_of_it = _run(paths, space, point)
        except ConfigError as error:
            for problem in _problems(error):
                wrong.setdefault(problem, []).append(point)
        else:
            runs.append(run)
            notes |= dict.fromkeys(said_of_it)
    if wrong:
        raise ConfigError("\n".join(_problem(*each, len(chosen)) for each in wrong.items()))
    config = runs[0].config
    metric = metric or next((gate.metric for gate in config.registry.gates), None)
    if metric:
        _check_metric(config, metric)
    name = str(config.logging.sweep)
    return Sweep(name, tuple(paths), space, tuple(runs), metric, trials, seed, tuple(notes))


def plans(sweep: Sweep) -> list[Plan]:
    """What each run would do, as things are now.

    Raises:
        ConfigError: what a run reads is not there or cannot be read, for all runs together.
        ServiceError: a server that has to be asked is away.
    """
    known: Known = {}
    made: list[Plan] = []
    wrong: dict[str, list[Point]] = {}
    for run in sweep.runs:
        try:
            made.append(plan(run.config, known=known))
        except ConfigError as error:
            for problem in _problems(error):
                wrong.setdefault(problem, []).append(run.point)
    if wrong:
        raise ConfigError("\n".join(_problem(*each, sweep.size) for each in wrong.items()))
    if sweep.metric:
        _check_alike(sweep.metric, made)
    return made


def _check_alike(metric: str, made: Sequence[Plan]) -> None:
    """Raises ConfigError where `metric` would mean something else in each run."""
    first, *others = (
        instrument(metric, one[f"{EVALUATE}{one.config.algo}"].stage.identity) for one in made
    )
    for other in others:
        if fields := differences(first, other):
            raise ConfigError(
                f"--metric {metric}: it would be measured by another {', '.join(fields)} in each "
                "run, which says nothing about the models; name a metric that all share"
            )


def _run(paths: Sequence[Path], space: Space, point: Point) -> tuple[Run, list[str]]:
    own = (*space.fixed, *(f"{key}={value}" for key, value in point.items()))
    asked = warned(read(paths, own))
    base = asked.config
    name = points.name(str(base.logging.run_name), point)
    named = (f"logging.run_name={name}", f"logging.sweep={base.logging.run_name}")
    overrides = (*own, *named, *EXPLORES)
    config = read(paths, overrides, needs.problems).config
    # Of what was asked for: that the sweep turns off registration is nobody's mistake.
    return Run(name, point, overrides, config, base.registry), asked.notes


def _problems(error: ConfigError) -> list[str]:
    """An error's lines, each with the excerpt below it."""
    return re.split(r"\n(?! )", str(error))


def _problem(message: str, having: Sequence[Point], total: int) -> str:
    if len(having) == total:
        return message
    told = "; ".join(map(said, having[:3])) + (" ..." if len(having) > 3 else "")
    return f"with {told}: {message}"


def _check_metric(config: RunConfig, metric: str) -> None:
    known = {*get_args(Metric), "reward", *(f"rewards/{r.reward_type}" for r in config.rewards)}
    if metric not in known and not metric.startswith(("rewards/", "lm_eval/")):
        raise ConfigError(f"--metric: {unknown('metric', metric, known)}")
    chosen = config.evaluation.metrics
    if chosen and metric in get_args(Metric) and metric not in chosen:
        raise ConfigError(f"--metric {metric} is not among `evaluation.metrics`; add it there")


def sharing(made: Sequence[Plan]) -> list[dict[str, list[str]]]:
    """Of each run, the labels of its stages: `run` here first, `shared` with an earlier run of the
    sweep, or `there` already."""
    seen: set[str] = set()
    found = []
    for one in made:
        kinds: dict[str, list[str]] = {"run": [], "shared": [], "there": []}
        for entry in one.stages:
            name = entry.stage.name
            kind = "there" if entry.artifact else "shared" if name in seen else "run"
            kinds[kind].append(entry.stage.label)
            seen.add(name)
        found.append(kinds)
    return found
