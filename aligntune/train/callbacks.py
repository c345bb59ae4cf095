"""What happens around a TRL trainer's steps: the journal, checkpoints, progress, stopping."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aligntune.heartbeat import Progress, beat
from aligntune.journal import Journal
from aligntune.train import checkpoints

Logs = Mapping[str, Any]

SHOWN = (("rewards/accuracies", "accuracy"), ("accuracy", "accuracy"), ("reward", "reward"))
"""Metrics beside the loss that show how it goes, and what they are called then."""
_PARTIAL = (
    "train_loss",
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "total_flos",
)
"""transformers' summary covers only the part since the last resume; ours is made of the journal."""


class WriteJournal(TrainerCallback):  # type: ignore[misc]
    """Every logged metric goes to the stage's journal as `train/...` or `eval/...`."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Logs, **_: Any) -> None:
        metrics = {
            _name(key): float(value)
            for key, value in logs.items()
            if isinstance(value, int | float) and key not in _PARTIAL and math.isfinite(value)
        }
        if metrics:
            self.journal.write(state.global_step, metrics)


def _name(key: str) -> str:
    return f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"


@dataclass(eq=False)
class CommitCheckpoints(TrainerCallback):  # type: ignore[misc]
    """What transformers saved becomes a committed checkpoint, or nothing."""

    folder: Path
    key: str
    identity: Mapping[str, Any]
    journal: Journal
    healthy: Callable[[], bool]

    def on_save(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        _wait()  # until every process has written its part
        if state.is_world_process_zero:
            self.journal.sync()
            written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            step = state.global_step
            measured = [log for log in state.log_history if log["step"] == step]
            losses = [log["eval_loss"] for log in measured if "eval_loss" in log]
            checkpoints.commit(
                written,
                self.folder,
                step=step,
                key=self.key,
                eval_loss=losses[-1] if losses else None,
                healthy=self.healthy(),
                identity=self.identity,
            )
        _wait()


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()


class ShowProgress(TrainerCallback):  # type: ignore[misc]
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Logs, **_: Any) -> None:
        if "loss" in logs:
            shown = {"loss": float(logs["loss"])}
            for key, name in SHOWN:
                if logs.get(key) is not None:  # where nothing could be judged there is no reward
                    shown[name] = float(logs[key])
            self.progress(state.global_step, state.max_steps, shown)


class StopWhenAsked(TrainerCallback):  # type: ignore[misc]
    """On a request to stop: finish the step, save, and leave the loop.

    Only the end of a step is a point from which a run continues exactly: inside one, random state
    has moved on and gradients are half accumulated. Its evaluation belongs to it, and comes before
    it is saved.
    """

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self.stopping = stopping
        self.stopped = False

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if _any_process(self.stopping()) and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control

    on_evaluate = on_step_end


class Beat(TrainerCallback):  # type: ignore[misc]
    """The points at which a training gets on, as signs of life."""

    on_train_begin = on_step_begin = on_substep_end = on_step_end = staticmethod(beat)
    on_prediction_step = on_evaluate = on_save = on_log = on_train_end = staticmethod(beat)


def _any_process(asked: bool) -> bool:
    """Whether one of the processes that train together was asked: all stop at the same step."""
    if not dist.is_initialized():
        return asked
    everyone: list[bool] = [False] * dist.get_world_size()
    dist.all_gather_object(everyone, asked)
    return any(everyone)


class ContinueCount(TrainerCallback):  # type: ignore[misc]
    """The tokens that were seen before a resume: TRL's offline trainers count from 0 again."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if hasattr(self.trainer, "_total_train_tokens"):  # contract: tests/train/test_trl_contract
            counts = [log["num_tokens"] for log in state.log_history if "num_tokens" in log]
            self.trainer._total_train_tokens = counts[-1] if counts else 0


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds spent in steps, without set-up and saving."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds += time.monotonic() - self._began
