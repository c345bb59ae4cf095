"""What is done with scores and curves once they are there: intervals, and comparing runs.

    PYTHONPATH=tests python -m benchmarks.evaluation

bootstrap   of a mean: 10,000 resamples of 10,000 prompts
compare     20 runs with curves of 10,000 points, from their journals and from MLflow
"""

import argparse
import json
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.figures import Figure, Found, cpu_seconds, in_turns, medians
from past import Past

MOST = {"bootstrap": 2.0, "compare": 5.0}
"""CPU-seconds."""
PARENT = "mlflow.parentRunId"


def bootstrap(prompts: int, resamples: int, rounds: int) -> list[Figure]:
    from scipy.stats import bootstrap as scipys

    from aligntune.evaluate.resample import CHUNK
    from aligntune.evaluate.stats import mean_interval

    scores = np.random.default_rng(0).normal(size=prompts)

    def ours() -> None:
        mean_interval(scores, confidence=0.95, resamples=resamples, seed=1)

    def draws() -> None:
        """Nothing but the random numbers."""
        generator = np.random.default_rng(1)
        rows = max(1, CHUNK // prompts)
        for start in range(0, resamples, rows):
            size = (min(rows, resamples - start), prompts)
            generator.integers(prompts, size=size, dtype=np.int32)

    def scipy() -> None:
        scipys(
            (scores,), np.mean, n_resamples=resamples, batch=max(1, CHUNK // prompts),
            method="percentile", rng=1,
        )  # fmt: skip

    spent = medians(in_turns({"ours": ours, "draws": draws, "scipy": scipy}, rounds))
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    what = f"Bootstrap, {resamples:,} resamples of {prompts:,} prompts"
    limit = f"drawing the random numbers takes {spent['draws']:.2f} s"
    return [
        Figure(what, spent["ours"], MOST["bootstrap"], "s", "the limit", 1, at_most=True,
               limit=limit, note=f"at most {peak:.0f} MB"),
        Figure(what, spent["ours"], spent["scipy"], "s", "scipy.stats.bootstrap, as many at once",
               1, at_most=True, limit=limit),
    ]  # fmt: skip


def compared(names: list[str], output: Path) -> None:
    """What `aligntune compare` does with them, a page included."""
    from aligntune.compare.comparison import compared, record
    from aligntune.compare.resolve import resolved
    from aligntune.report.compare import write

    made = compared(resolved(names, [], output), output)
    assert len(made.overlays[0].lines) == len(names)
    json.dumps(record(made))
    write(made, output / "compared.html")


def journals(output: Path, runs: int, points: int) -> list[str]:
    """Runs with two curves each and an evaluation of a thousand prompts by two metrics."""
    random = np.random.default_rng(0)
    past, prompts = Past(output), min(points, 1000)
    for number in range(runs):
        scores = {
            "exact_match": random.integers(0, 2, prompts).astype(float).tolist(),
            "nll": random.normal(size=prompts).tolist(),
        }
        curve = random.normal(size=points)
        past.run(f"run-{number}", scores=scores, curve=curve, beta=number / runs)
    return [f"run-{number}" for number in range(runs)]


def logged(output: Path, runs: int, points: int) -> list[str]:
    """Runs with one curve each that only MLflow knows."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiment = client.create_experiment("runs")
    random, names = np.random.default_rng(0), []
    for number in range(runs):
        run = client.create_run(experiment, run_name=f"run-{number}").info.run_id
        client.log_param(run, "algo", "dpo")
        stage = client.create_run(
            experiment,
            tags={PARENT: run, "aligntune.stage": "dpo", "aligntune.artifact": f"dpo-{number}"},
        )
        values = enumerate(random.normal(size=points), 1)
        metrics = [Metric("train/loss", value, 1, step) for step, value in values]
        for start in range(0, points, 1000):
            client.log_batch(stage.info.run_id, metrics[start : start + 1000])
        for name in (stage.info.run_id, run):
            client.set_terminated(name)
        names.append(run)
    return names


def comparison(make: Any, words: str, note: str, runs: int, points: int, rounds: int) -> Figure:
    with tempfile.TemporaryDirectory() as name:
        output = Path(name)
        names = make(output, runs, points)
        spent = medians(in_turns({"ours": lambda: compared(names, output)}, rounds, cpu_seconds))
    what = f"compare of {runs} runs with {points:,} points a curve, {words}"
    return Figure(
        what, spent["ours"], MOST["compare"], "s", "the limit", 1, at_most=True, note=note
    )


def main() -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    size, rounds = (500, 1) if small else (10_000, 3)
    runs = 3 if small else 20
    figures = [
        *bootstrap(size, size, rounds),
        comparison(
            journals, "from journals", "two curves and 1,000 prompts each", runs, size, rounds
        ),
        comparison(
            logged,
            "that only MLflow has",
            "one curve each; MLflow reads a curve of 10,000 points in 0.1 s",
            runs,
            size,
            rounds,
        ),
    ]
    Found(figures, setup={"rounds": str(rounds)}).print()


if __name__ == "__main__":
    main()
