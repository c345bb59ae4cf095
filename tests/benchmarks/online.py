"""grpo, gbmpo, counterfactual-grpo and bolt on one task, several seeds each.

    python tests/benchmarks/online.py --output output/online --plot docs/methods.svg

Everything but the algorithm, and what METHODS says, is the same: start, prompts, number of answers,
optimizer. Runs are ordinary ones, so the same command again goes on where it stopped and reuses
what is done; `--report` only reads what there is. Seconds are CPU-seconds of the training process,
which depend little on what else the machine does. Needs reasoning-gym and matplotlib.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

HERE = Path(__file__).parent
METHODS: dict[str, dict[str, str]] = {
    "grpo": {},
    "gbmpo": {},  # prob_l2 with the weight of its paper
    "counterfactual-grpo": {"train.counterfactual.answer_markers": "[the answer is]"},
    "bolt": {},
}
"""Algorithm -> what else it is given: the rest is its paper's, as `aligntune init` shows it."""
KINDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
LAYERS = ",".join(f"{layer}.{kind}" for layer in range(20, 30) for kind in KINDS)
"""The last ten of 30 have adapters, so that a step is cheaper."""
WINDOW = 4
"""Steps that a point of the plot is the mean of."""
QUANTILE = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t at 97.5 % for means of so many seeds."""


@dataclass(frozen=True)
class Run:
    algo: str
    seed: int
    rewards: list[float]
    """Mean reward of the answers of each step."""
    seconds: list[float]
    """CPU-seconds of each step."""
    before: float
    """Held-out exact match of the start."""
    after: float
    difference: dict[str, float]
    """After less before, with its interval paired by question."""


def train(output: Path, config: str, name: str, settings: dict[str, str]) -> None:
    """One run, at the lowest priority and on one thread."""
    command = [sys.executable, "-m", "aligntune", "train", "-c", str(HERE / config)]
    every = {"peft.target_modules": f"[{LAYERS}]"} | settings
    for key, value in every.items():
        command += ["--set", f"{key}={value}"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "START": str(output / "runs" / "start" / "model"),
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    }
    log = output / f"{name}.log"
    with log.open("a") as file:
        done = subprocess.run(
            ["nice", "-n", "19", *command, "--output-dir", str(output), "--run-name", name],
            stdout=file, stderr=subprocess.STDOUT, env=environment, check=False,
        )  # fmt: skip
    sys.stderr.write(f"{name}: {done.returncode}\n")
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}; {log} says why")


def runs(output: Path, seeds: int, at_once: int) -> None:
    output.mkdir(parents=True, exist_ok=True)
    train(output, "online_start.yaml", "start", {})
    with ThreadPoolExecutor(at_once) as pool:
        waiting = [
            pool.submit(train, output, "online.yaml", f"{algo}-{seed}",
                        {"algo": algo, "seed": str(seed), **extra})
            for seed in range(1, seeds + 1)
            for algo, extra in METHODS.items()
        ]  # fmt: skip
        for one in waiting:
            one.result()


def finished(output: Path, seeds: int) -> Iterator[Run]:
    """Those that are done, in the order of METHODS."""
    for algo in METHODS:
        for seed in range(1, seeds + 1):
            stages = output / "runs" / f"{algo}-{seed}" / "stages"
            evaluation = stages / f"evaluate-{algo}" / "evaluation.json"
            if not evaluation.exists():
                continue
            lines = (stages / algo / "metrics.jsonl").read_text().splitlines()
            steps = [json.loads(line)["metrics"] for line in lines]
            steps = [step for step in steps if "train/reward" in step]
            found = json.loads(evaluation.read_text())["metrics"]["exact_match"]
            base = json.loads((stages / "evaluate-base" / "evaluation.json").read_text())
            yield Run(
                algo,
                seed,
                [step["train/reward"] for step in steps],
                [step["train/time/cpu"] for step in steps],
                base["metrics"]["exact_match"]["mean"],
                found["mean"],
                {key: found["against"]["base"][key] for key in ("difference", "low", "high")},
            )


def interval(values: list[float]) -> dict[str, float]:
    """The mean over seeds with its 95 % interval, Student's t."""
    mean, count = statistics.mean(values), len(values)
    if count not in QUANTILE:
        return {"mean": mean}
    half = QUANTILE[count] * statistics.stdev(values) / count**0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}


def summary(found: list[Run]) -> dict[str, object]:
    """By algorithm: before and after, seconds per step, and how each seed differs from grpo's."""
    base = {run.seed: run for run in found if run.algo == "grpo"}
    table = {}
    for algo in METHODS:
        own = [run for run in found if run.algo == algo]
        if not own:
            continue
        both = [run for run in own if run.seed in base]
        table[algo] = {
            "seeds": [run.seed for run in own],
            "before": interval([run.before for run in own]),
            "after": interval([run.after for run in own]),
            "gain": interval([run.after - run.before for run in own]),
            "cpu_seconds_per_step": interval([statistics.mean(run.seconds) for run in own]),
            "after_less_grpo": interval([run.after - base[run.seed].after for run in both])
            if both
            else None,
            "seconds_of_grpo": statistics.mean(
                [sum(run.seconds) / sum(base[run.seed].seconds) for run in both]
            )
            if both
            else None,
        }
    return {"methods": table, "runs": [asdict(run) for run in found]}


def smooth(values: list[float]) -> list[float]:
    return [statistics.mean(values[max(0, i - WINDOW + 1) : i + 1]) for i in range(len(values))]


def plot(found: list[Run], file: Path) -> None:
    """Mean reward against steps and against CPU-seconds: mean over seeds, from least to most."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "online"
    figure, (by_step, by_second) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for algo in METHODS:
        own = [run for run in found if run.algo == algo]
        if not own:
            continue
        curves = list(zip(*[smooth(run.rewards) for run in own], strict=True))
        spent = zip(*[accumulate(run.seconds) for run in own], strict=True)
        mean = [statistics.mean(each) for each in curves]
        for axes, at in (
            (by_step, list(range(1, len(mean) + 1))),
            (by_second, [statistics.mean(each) for each in spent]),
        ):
            (line,) = axes.plot(at, mean, label=f"{algo}, {len(own)} seeds")
            axes.fill_between(
                at, [min(c) for c in curves], [max(c) for c in curves],
                color=line.get_color(), alpha=0.15, linewidth=0,
            )  # fmt: skip
    by_step.set_xlabel("optimizer steps")
    by_second.set_xlabel("CPU-seconds of training")
    by_step.set_ylabel(f"mean reward, {WINDOW} steps")
    by_step.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/online"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=1, help="Runs at the same time.")
    parser.add_argument("--report", action="store_true", help="Train nothing.")
    parser.add_argument("--plot", type=Path, help="File for the picture.")
    given = parser.parse_args()
    output = given.output.absolute()
    if not given.report:
        runs(output, given.seeds, given.at_once)
    found = list(finished(output, given.seeds))
    if not found:
        raise SystemExit(f"no run below {output} is finished")
    result = json.dumps(summary(found), indent=2)
    (output / "results.json").write_text(result + "\n")
    if given.plot:
        plot(found, given.plot)
    sys.stdout.write(result + "\n")


if __name__ == "__main__":
    main()
