"""How time and memory grow with rows, prompts, runs in the store and stages of a plan.

    PYTHONPATH=tests python -m benchmarks.growth

A figure's exponent is the slope between the two largest sizes on logarithmic axes, where a fixed
cost counts least: 1 is linear.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import data, store
from benchmarks.figures import Curve, Figure, Found, in_turns, medians

Taken = dict[float, float]
"""Size -> seconds or MB."""


def exponent(taken: Taken) -> float:
    (less, before), (more, after) = sorted(taken.items())[-2:]
    return log(after / before) / log(more / less)


def curve(what: str, line: str, of: str, unit: str, taken: Taken) -> Curve:
    sizes, values = zip(*sorted(taken.items()), strict=True)
    return Curve(what, line, sizes, values, of, unit)


def figure(what: str, taken: Taken, note: str = "") -> Figure:
    largest = max(taken)
    unit = "MB" if "memory" in what else "CPU-s"
    told = f"{taken[largest]:.3g} {unit} at {largest:,.0f}"
    return Figure(
        f"Growth of {what}, exponent", exponent(taken), 1.0, "", "linear", 1, at_most=True,
        note=f"{told}. {note}" if note else told,
    )  # fmt: skip


def timed(sizes: Iterable[int], make: Callable[[int], Callable[[], object]], rounds: int) -> Taken:
    """CPU-seconds by size; `make` prepares what is timed."""
    return {size: medians(in_turns({"": make(size)}, rounds))[""] for size in sizes}


def rows(folder: Path, sizes: Sequence[int]) -> tuple[Taken, Taken]:
    """(CPU-seconds without imports, MB at most) of the data stage."""
    seconds, memory = {}, {}
    for size in sizes:
        place = folder / str(size)
        data.write(place, size)
        took = data.process("ours", place)
        seconds[size], memory[size] = took["own_s"], took["peak_mb"]
    return seconds, memory


def evaluated(prompts: int) -> Callable[[], object]:
    """An evaluation's scores with intervals, against a baseline, written."""
    from aligntune.evaluate.compare import Resampling, measure, units_of, write
    from aligntune.evaluate.types import Metric

    source = np.random.default_rng(0)
    asked = [{"prompt": [{"role": "user", "content": f"question {i}"}]} for i in range(prompts)]
    own, other = source.normal(size=(2, prompts)).tolist()
    metric = Metric(lambda *_: [], ("prompt",))

    def work() -> None:
        units = units_of(asked)
        how = Resampling(0.95, 1000, 1)
        measure("reward", metric, own, prompts, units, {"base": {"reward": other}}, how)
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), asked, [None] * prompts, {"reward": own}, {})

    return work


def online(tokenizer: Path) -> Callable[[int], Callable[[], object]]:
    """What online training reads of the data stage's rows before its first step."""
    import pyarrow.parquet as pq
    from tokens import write_split

    from aligntune.data import tokens
    from aligntune.train.rows import asked, fitting

    def make(prompts: int) -> Callable[[], object]:
        made = [{"prompt": [{"role": "user", "content": f"question {i}"}]} for i in range(prompts)]
        folder = write_split(
            Path(tempfile.mkdtemp(dir=tokenizer.parent)), made, "prompt", tokenizer
        )
        file = folder / "train.parquet"
        rows = file, file.with_name("train.tokens.parquet")
        return lambda: fitting(asked(pq.read_table(rows[0]), tokens.read(rows[1])), 64)

    return make


def stored(folder: Path, sizes: Sequence[int], rounds: int) -> dict[str, Taken]:
    """`runs` and `plan` below output directories with so many runs."""
    from tiny import build_tiny_model

    from aligntune.compare.resolve import listed
    from aligntune.plan import plan

    model = build_tiny_model(folder / "model")
    configs = {size: store.build(folder / f"runs-{size}", model, size) for size in sizes}

    def listing(size: int) -> Callable[[], object]:
        def work() -> None:
            assert len(listed(folder / f"runs-{size}", ["state=finished"])) == size

        return work

    return {
        "runs": timed(sizes, listing, rounds),
        "plan": timed(sizes, lambda size: lambda: plan(configs[size]), rounds),
    }


def stages(config: Any, sizes: Sequence[int], rounds: int) -> Taken:
    """A plan of so many stages: a run's own, then more evaluations of its model."""
    from aligntune.paths import Paths
    from aligntune.pipeline import steps
    from aligntune.plan import planned

    own = steps(config, tracking_uri="local", hub_endpoint="")
    measured = next(step for step in own if step.kind == "evaluate")
    more = [
        replace(
            measured,
            label=f"evaluate-{number}",
            config=measured.config.model_copy(update={"seed": number}),
        )
        for number in range(max(sizes))
    ]
    every, paths = [*own, *more], Paths.of(config)

    def make(size: int) -> Callable[[], object]:
        def work() -> None:
            assert len(planned(config, paths, every[:size]).stages) == size

        return work

    return timed(sizes, make, rounds)


def measured(*, small: bool) -> Found:
    rounds = 1 if small else 3
    of_rows = (500, 2000) if small else (10_000, 100_000, 1_000_000)
    of_prompts = (50, 100, 200) if small else (100, 1000, 10_000)
    of_runs = (3, 6, 12) if small else (10, 100, 1000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds, memory = rows(folder / "data", of_rows)
        tokenizer = data.prepared(folder / "tokenizer", small=True)
        asked = {
            "evaluation": timed(of_prompts, evaluated, rounds),
            "online training": timed(of_prompts, online(tokenizer), rounds),
            "bootstrap": timed(of_prompts, bootstrap, rounds),
        }
        kept = stored(folder, of_runs, rounds)
        config = store.build(folder / "empty", folder / "model", 0)
        plans = stages(config, (3, 10, 30), rounds)
    curves = [
        curve("Data stage", "time", "rows", "CPU-s", seconds),
        curve("Data stage", "memory", "rows", "MB", memory),
        *(curve("Prompts", line, "prompts", "CPU-s", taken) for line, taken in asked.items()),
        *(curve("Runs in the store", line, "runs", "CPU-s", taken) for line, taken in kept.items()),
        curve("Plan", "plan", "stages", "CPU-s", plans),
    ]
    figures = [
        figure("the data stage's time with rows", seconds),
        figure("the data stage's memory with rows", memory),
        *(figure(f"{line} with prompts", taken) for line, taken in asked.items()),
        *(
            figure(f"`aligntune {line}` with runs in the store", taken)
            for line, taken in kept.items()
        ),
        figure("`aligntune plan` with stages", plans),
    ]
    return Found(figures, curves, setup={"rounds": str(rounds)})


def bootstrap(prompts: int) -> Callable[[], object]:
    """The interval of a mean by 10,000 resamples."""
    from aligntune.evaluate.stats import mean_interval

    scores = np.random.default_rng(0).normal(size=prompts)
    return lambda: mean_interval(scores, confidence=0.95, resamples=10_000, seed=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    measured(small=small).print()


if __name__ == "__main__":
    main()
