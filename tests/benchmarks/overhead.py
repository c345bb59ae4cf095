"""What the pipeline costs beside the training that it runs, and what a run costs that changes
nothing.

    PYTHONPATH=tests python -m benchmarks.overhead

A ratio of 1.03 is below what a shared machine resolves, so it is made of parts that are measured
where they are large: the difference per step on a model whose steps take milliseconds, and the
difference of whole processes that take few of them, from the same rows to a saved model, with
MLflow. Both are then held against the steps of SmolLM2-135M that make a run of five minutes.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.figures import (
    Figure,
    Found,
    children_seconds,
    cpu_seconds,
    in_turns,
    medians,
)

RUN = 300.0
"""CPU-seconds of a short training run."""
STEP = 8.2
"""CPU-seconds of a step of SmolLM2-135M with TRL's default settings, 2 rows of 256 tokens."""
WEIGHTS = 541_000_000
"""Bytes of its weights."""
LIMIT = 2.0
"""CPU-seconds that a run may take which changes nothing."""
PLAN = 1.0
CONFIG = """
algo: sft
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96, gradient_checkpointing: false}}
datasets: [{{name: {rows}}}]
train: {{per_device_batch_size: 4, max_steps: {steps}, learning_rate: 1e-3}}
evaluation:
  datasets: [{{name: {rows}, max_samples: 12}}]
  max_new_tokens: 8
  resamples: 200
cleaning: {{decontaminate: null}}
registry: {{name: tiny}}
logging: {{output_dir: {output}, run_name: tiny, save_steps: {steps}}}
"""
STAGE = """
import sys
from pathlib import Path
from aligntune.config.load import load
from aligntune.console import configure, screen
from aligntune.direct import run_stages
from aligntune.plan import plan
from aligntune.session import preparing

config = load([Path(sys.argv[1])])
configure("WARNING", screen())
with preparing(plan(config, only="sft"), "benchmark") as session:
    run_stages(config, screen(), session, lambda: False)
"""
"""The pipeline as far as its SFT stage: model, rows, training, MLflow."""


def processes(sides: Mapping[str, Callable[[], list[str]]], rounds: int) -> dict[str, float]:
    """Medians of the CPU-seconds of commands that take turns; what they read is warm by then."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, command in sides.items():
            taken[name].append(children_seconds(command()))
    return medians(taken)


def write_rows(path: Path) -> Path:
    from offline import WORDS

    turns = (
        [
            {"role": "user", "content": f"say {word} and {number}"},
            {"role": "assistant", "content": f"{word} it is, and {number}"},
        ]
        for word in WORDS
        for number in range(32)
    )
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    return path


def write_config(folder: Path, name: str, steps: int) -> Path:
    """A config of a run below `folder`, of its model and rows."""
    path = folder / f"{name}.yaml"
    parts = {"model": folder / "model", "rows": folder / "rows.jsonl", "output": folder / name}
    path.write_text(CONFIG.format(steps=steps, **parts))
    return path


def per_step(folder: Path, steps: int, rounds: int) -> dict[str, float]:
    """CPU-seconds of a step of the stage's trainer and of TRL's with the same rows and settings,
    without what comes once."""
    from offline import make, spec
    from places import place
    from transformers import PrinterCallback
    from trl import SFTTrainer

    from aligntune.models.load import load_policy, load_tokenizer
    from aligntune.train.loop import fit

    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    chosen = spec(max_steps=steps, save_steps=steps, per_device_batch_size=4, max_length=96)
    numbers = iter(range(1000))

    def trainer():
        setting = place(folder / f"turn-{next(numbers)}")
        return setting, make(folder / "model", chosen, setting, rows)

    def ours() -> float:
        setting, made = trainer()
        return cpu_seconds(lambda: fit(made, chosen, setting, len(rows))) / steps

    def theirs() -> float:
        _, made = trainer()
        made.args.logging_steps = 10  # its default
        bare = SFTTrainer(
            model=load_policy(folder / "model", trust_remote_code=False),
            args=made.args,
            train_dataset=made.train_dataset,
            processing_class=load_tokenizer(folder / "model"),
        )
        bare.remove_callback(PrinterCallback)
        return cpu_seconds(bare.train) / steps

    return medians(in_turns({"ours": ours, "trl": theirs}, rounds, lambda side: side()))


def whole(folder: Path, steps: int, rounds: int) -> dict[str, float]:
    """CPU-seconds of processes from rows to a saved model."""
    numbers = iter(range(1000))

    def ours() -> list[str]:
        config = write_config(folder, f"whole-{next(numbers)}", steps)
        return [sys.executable, "-c", STAGE, str(config)]

    def theirs() -> list[str]:
        output = folder / f"bare-{next(numbers)}"
        given = [str(folder / "model"), str(folder / "rows.jsonl"), str(output), str(steps)]
        return [sys.executable, "-m", "benchmarks.bare", *given]

    return processes({"ours": ours, "trl": theirs}, rounds)


def weighing(folder: Path) -> float:
    """CPU-seconds that a stage takes more for weights of that size than for tiny ones: a model
    stage copies and hashes them, and the training stage hashes what it has made."""
    from aligntune.artifacts import records
    from aligntune.models.prepare import shutil as prepared

    source, target = folder / "weights", folder / "weighed"
    target.mkdir()
    source.write_bytes(os.urandom(1 << 20) * (WEIGHTS >> 20))
    copy = cpu_seconds(lambda: prepared.copyfile(source, target / "model.safetensors"))
    hashing = cpu_seconds(lambda: records(target))
    source.unlink()
    (target / "model.safetensors").unlink()
    return copy + 2 * hashing


def unchanged(folder: Path, rounds: int) -> tuple[dict[str, float], int]:
    """CPU-seconds of `train` and `plan` where every artifact is there, and how many stages ran."""
    config = str(write_config(folder, "unchanged", 4))
    aligntune = [sys.executable, "-m", "aligntune"]
    children_seconds([*aligntune, "train", "-c", config])
    taken = processes(
        {name: lambda name=name: [*aligntune, name, "-c", config] for name in ("train", "plan")},
        rounds,
    )
    stages = json.loads((folder / "unchanged" / "runs" / "tiny" / "plan.json").read_text())
    return taken, sum(stage["state"] != "reuse" for stage in stages)


def as_flow(folder: Path, rounds: int) -> Figure:
    """The same run, unchanged, as a Prefect flow, against a flow of as many empty tasks."""
    from aligntune.config.load import load
    from aligntune.plan import plan

    config = folder / "unchanged.yaml"
    count = str(len(plan(load([config])).stages))
    commands = {
        "ours": [sys.executable, "-m", "aligntune", "flow", "-c", str(config)],
        "prefect": [sys.executable, "-m", "benchmarks.empty_flow", count],
    }
    took = processes(
        {name: lambda command=command: command for name, command in commands.items()}, rounds
    )
    return Figure(
        "the same as a flow, CPU time", took["ours"], took["prefect"] + LIMIT, "s",
        f"a flow of {count} empty tasks ({took['prefect']:.1f} s), and 2 s", 1.0, True,
        "MLflow's import is in it, and happens while Prefect's server starts",
    )  # fmt: skip


def told(outbox: Path) -> None:
    """Wait until MLflow has been told everything by the processes that go on."""
    end = time.monotonic() + 300
    while any(outbox.glob("*/record.json")) and time.monotonic() < end:
        time.sleep(0.5)


def figures(
    step: Mapping[str, float], process: Mapping[str, float], weights: float,
    rerun: Mapping[str, float], ran: int,
) -> list[Figure]:  # fmt: skip
    each, once = step["ours"] - step["trl"], process["ours"] - process["trl"] + weights
    total = RUN + once + each * RUN / STEP
    note = (
        f"Once {once:.1f} s, of which {weights:.1f} s copy and hash weights; "
        f"{1000 * each:.1f} ms per step"
    )
    executed = f"{ran} of its stages were executed; MLflow is told by a process that goes on"
    return [
        Figure("SFT of five minutes through the pipeline, CPU time", total, RUN, "s",
               "TRL's SFTTrainer in a script", 1.03, True, note),
        Figure("a run that changes nothing, CPU time", rerun["train"], LIMIT, "s",
               "a limit of 2 s", 1.0, True, executed),
        Figure("plan of it, CPU time", rerun["plan"], PLAN, "s", "a limit of 1 s", 1.0, True),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    steps, rounds, turns = (10, 1, 1) if small else (64, 7, 3)
    import torch
    from tiny import build_tiny_model

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        build_tiny_model(folder / "model")
        write_rows(folder / "rows.jsonl")
        step = per_step(folder, steps, rounds)
        process = whole(folder, 4, turns)
        rerun, ran = unchanged(folder, turns)
        found = figures(step, process, weighing(folder), rerun, ran)
        if not small:  # each starts a server
            found.append(as_flow(folder, 1))
        told(folder / "unchanged" / "outbox")
    setup = {
        "model": "2 layers of 32, and the size and step of SmolLM2-135M",
        "steps": f"{steps} in {rounds} turns",
        "processes": f"{turns} turns",
    }
    Found(found, setup=setup).print()


if __name__ == "__main__":
    main()
