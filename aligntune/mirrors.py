"""gbmpo's mirror map, learned: each of many maps trains a policy for a while, and what that scores
is the map's fitness.

Every such training is a part of a run like any other, so the same command again reuses what it has
and goes on where it stopped.
"""

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligntune.config.run import RunConfig
from aligntune.console import configure, screen
from aligntune.direct import run_stages
from aligntune.errors import ConfigError, Diverged, unknown
from aligntune.interrupt import stop_on_signals
from aligntune.paths import Paths, hub_endpoint, tracking_identity
from aligntune.pipeline import final, steps
from aligntune.plan import Plan, needed, planned
from aligntune.session import Session, preparing

if TYPE_CHECKING:
    from torch import Tensor

    from aligntune.losses.evolution import Search, State

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What makes a map's fitness."""

    config: RunConfig
    metric: str
    """Of the evaluation's."""
    steps: int
    """Optimizer steps that a map trains a policy for."""
    command: str

    @property
    def folder(self) -> Path:
        paths = Paths.of(self.config)
        return paths.root / "mirrors" / paths.run.name


def learn(asked: Asked, search: "Search", *, as_json: bool = False) -> None:
    """Learn a mirror map, write it to `<output_dir>/mirrors/<run_name>/mirror.safetensors`, and
    print how each round went; the same is in `history.jsonl` beside it.

    Raises:
        ConfigError: the config is no run of gbmpo, or the metric is none of its evaluation.
        AlignTuneError: a stage failed or was asked to stop; finished ones are kept.
    """
    from aligntune.losses.evolution import State, evolve
    from aligntune.losses.mirror import flat, mirror, unflat
    from aligntune.train.mirror_file import write_mirror

    section = asked.config.train.gbmpo
    if asked.config.algo != "gbmpo" or not section or section.divergence != "neural":
        raise ConfigError(
            "a mirror map belongs to `algo: gbmpo` with `train.gbmpo.divergence: neural`; set both"
        )
    console = screen(stderr=as_json)
    configure(asked.config.logging.level, console)
    history = asked.folder / "history.jsonl"
    with stop_on_signals() as stopping:

        def fitness(parameters: "Tensor") -> float | None:
            return _fitness(asked, parameters, lambda s, c: run_stages(c, console, s, stopping))

        state = State(flat(mirror(section.mirror_seed)))
        rounds = [_told(fitness(state.center), state, search)]
        for after in evolve(state, fitness, search):
            state = after
            rounds.append(_told(fitness(state.center), state, search))
            history.write_text("".join(json.dumps(row) + "\n" for row in rounds))
            LOG.info("round %d of %d: %s", state.number, search.rounds, _line(rounds[-1]))
    file = asked.folder / "mirror.safetensors"
    write_mirror(unflat(state.center), file)
    result = {"mirror": str(file), "metric": asked.metric, "search": asdict(search)}
    if as_json:
        sys.stdout.write(json.dumps(result | {"rounds": rounds}, indent=2) + "\n")
        return
    for row in rounds:
        console.print(f"round {row['round']:>3}  {_line(row)}", highlight=False)
    console.print(f"mirror   {file}", highlight=False)


def _fitness(
    asked: Asked, parameters: "Tensor", run: Callable[[Session, RunConfig], None]
) -> float | None:
    """What a policy scores that was trained with the map of `parameters`, the same seeds and rows
    for all maps; None where that diverged."""
    config = _config(asked, parameters)
    try:
        with preparing(_plan(config), asked.command, "evaluation") as session:
            run(session, config)
    except Diverged as error:
        LOG.warning("a map and its opposite are left out: %s", error)
        return None
    artifact = session.artifact(f"evaluate-{final(config)}")
    metrics = artifact.read("evaluation.json")["metrics"]
    if asked.metric not in metrics:
        raise ConfigError("--metric: " + unknown("metric", asked.metric, metrics))
    found = metrics[asked.metric]
    return float(found["mean"] if found["higher_is_better"] else -found["mean"])


def _config(asked: Asked, parameters: "Tensor") -> RunConfig:
    """The run of a map: the asked one's, but for the map, and how long it trains."""
    from aligntune.losses.mirror import flat, unflat
    from aligntune.train.mirror_file import write_mirror

    f = unflat(parameters)
    name = hashlib.sha256(flat(f).numpy().tobytes()).hexdigest()[:12]
    file = asked.folder / f"{name}.safetensors"
    if not file.exists():
        write_mirror(f, file)
    train, section = asked.config.train, asked.config.train.gbmpo
    assert section
    changed = section.model_copy(update={"mirror_path": str(file)})
    return asked.config.model_copy(
        update={
            "train": train.model_copy(update={"gbmpo": changed, "max_steps": asked.steps}),
            "registry": asked.config.registry.model_copy(update={"promote": "never"}),
        }
    )


def _plan(config: RunConfig) -> Plan:
    every = steps(config, tracking_uri=tracking_identity(), hub_endpoint=hub_endpoint())
    return planned(config, Paths.of(config), needed(every, {f"evaluate-{final(config)}"}))


def _told(own: float | None, state: "State", search: "Search") -> dict[str, Any]:
    """A round in numbers: the fitness of its points, and of the center after it."""
    number = state.number
    each = [score for pair in state.pairs for score in (pair.up, pair.down)]
    told: dict[str, Any] = {
        "round": number,
        "center": own,
        "moved": state.accepted,
        "norm": float(state.center.norm()),
    }
    if number:
        told |= {"sigma": search.deviation(number - 1), "points": len(each)}
    if each:
        told |= {"mean": _mean(each), "least": min(each), "most": max(each)}
    return told


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _line(row: dict[str, Any]) -> str:
    points = ""
    if "mean" in row:
        points = f"points {row['mean']:.4g} ({row['least']:.4g} to {row['most']:.4g})  "
    own = "failed" if row["center"] is None else f"{row['center']:.4g}"
    return f"{points}center {own}{'  moved' if row['moved'] else ''}"
