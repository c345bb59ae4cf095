"""From a trainer to finished weights: resume, train, refuse what is not finite, save."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from inspect import unwrap
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback

from aligntune.config.algo import ONLINE
from aligntune.config.slices import TrainSlice
from aligntune.errors import ConfigError, DataError, Diverged, Interrupted
from aligntune.evaluate.forward import longest_sequence
from aligntune.heartbeat import Progress, beat
from aligntune.journal import FILE, Journal, read
from aligntune.models.save import check_finite
from aligntune.train import checkpoints, loggers
from aligntune.train.callbacks import (
    Beat,
    Clock,
    CommitCheckpoints,
    ContinueCount,
    ShowProgress,
    StopWhenAsked,
    WriteJournal,
)
from aligntune.train.guard import Still
from aligntune.train.reward_functions import Judge, judges
from aligntune.train.samples import Asked, log_samples
from aligntune.train.sampling import NOT_FINITE

LOG = logging.getLogger(__name__)

MAX_DROPPED = 0.05
"""Share of training rows that may be lost to `max_length` before that is an error."""
MAX_FILTERED = 0.5
"""The same of prompts for sampling and `max_prompt_length`: to keep the short ones is usual."""

FINAL = (
    "train/loss",
    "train/rewards/accuracies",
    "train/rewards/margins",
    "train/accuracy",
    "train/margin",
    "train/error",
    "train/reward",
    "train/kl",
)
"""Curves whose last point is in the summary."""


@dataclass(frozen=True)
class Setting:
    """Where a training stage works and whom it tells."""

    out: Path
    work: Path
    """Scratch: checkpoints are in it, so it has to survive an interruption."""
    key: str
    progress: Progress
    stopping: Callable[[], bool]
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What the key digests."""
    decided: Callable[[Mapping[str, bool]], None] = lambda ways: None
    """Told what the trainer's `made` says before it trains."""


class Finite:
    """Mixin for a TRL trainer: stops before the optimizer sees a loss or gradient that is not
    finite, and after the last step. transformers itself goes on, reports a loss of 0.0, and saves
    the NaNs."""

    made: Mapping[str, bool] = {}
    """What was done of that which is left to the model and the machine, by its name in
    `estimate.memory.Choice`."""

    def healthy(self) -> bool:
        """Whether the latest step shows no sign of a collapse."""
        return True

    def _run_epoch(self, **given: Any) -> None:
        # Broken off between the last checkpoint and the artifact: transformers would take a step
        # more than was planned.
        if self.state.global_step >= self.state.max_steps:  # type: ignore[attr-defined]
            self.control.should_training_stop = True  # type: ignore[attr-defined]
            return
        super()._run_epoch(**given)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        check_finite(model.named_parameters())  # an update may overflow where its gradient did not
        super()._save_checkpoint(model, trial)  # type: ignore[misc]

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        loss = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        finite = torch.isfinite(loss).all()
        # A gradient scaler finds overflows by itself, and skips their updates.
        scaled = self.accelerator.scaler is not None  # type: ignore[attr-defined]
        if self.accelerator.sync_gradients and not scaled:  # type: ignore[attr-defined]
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            norms = torch._foreach_norm(gradients) if gradients else []
            # Asked at once: each question to a GPU waits for all that it has to do.
            asked = [norm.isfinite().to(finite.device) for norm in norms]
            finite = torch.stack([finite, *asked]).all()
        if not bool(finite):
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            raise Diverged(
                f"step {step}: the loss ({float(loss):g}) or a gradient is not finite; nothing was "
                "updated. Lower train.learning_rate, or look at the rows of this step"
            )
        return loss


def arguments(spec: TrainSlice, setting: Setting, *, evaluates: bool) -> dict[str, Any]:
    """The arguments that every TRL config shares, from ours."""
    train = spec.train
    cpu = not torch.cuda.is_available()
    if "8bit" in train.optimizer and (cpu or find_spec("bitsandbytes") is None):
        raise ConfigError(
            f"train.optimizer: {train.optimizer} needs a GPU and bitsandbytes (`pip install "
            "bitsandbytes`); use adamw_torch"
        )
    if spec.precision == "fp16" and cpu:
        raise ConfigError("model.precision: fp16 needs a GPU; use bf16 or fp32 on a CPU")
    if spec.precision == "bf16" and not cpu and not torch.cuda.is_bf16_supported():
        raise ConfigError("model.precision: this GPU has no bf16; use fp16 or fp32")
    return {
        "output_dir": str(setting.work / "trainer"),
        "per_device_train_batch_size": train.per_device_batch_size,
        "per_device_eval_batch_size": train.per_device_batch_size,
        "gradient_accumulation_steps": train.gradient_accumulation_steps,
        "max_steps": train.max_steps or -1,
        "num_train_epochs": train.num_epochs,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.lr_scheduler_type,
        "warmup_steps": train.warmup_steps,
        "weight_decay": train.weight_decay,
        "optim": train.optimizer,
        "max_grad_norm": train.max_grad_norm,
        "max_length": train.max_length,
        "bf16": spec.precision == "bf16",
        "fp16": spec.precision == "fp16",
        "activation_checkpointing": spec.gradient_checkpointing,
        "use_cpu": cpu,
        "dataloader_pin_memory": not cpu,
        "seed": spec.seed,
        "trust_remote_code": spec.trust_remote_code,  # for DPO's reference
        # Every step, so that a curve does not depend on where a run was resumed.
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": spec.save_steps,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": spec.eval_steps if evaluates else None,
        "report_to": "none",  # `loggers` knows where they write
        "disable_tqdm": True,
        "push_to_hub": False,
    }


def configured(kind: Callable[..., Any], **given: Any) -> Any:
    """A TRL config of this `kind`, for a process that trains on one device: where there are more,
    transformers would split its batches among them, which TRL's trainers refuse."""
    config = kind(**given)
    config._n_gpu = min(config.n_gpu, 1)
    return config


def within(spec: TrainSlice, model: Any) -> TrainSlice:
    """`spec` with lengths that fit into the model's positions."""
    train, positions = spec.train, longest_sequence(model, None)
    if positions is None or (train.max_length or 0) <= positions:
        return spec
    LOG.warning(
        "train.max_length is %s, but the model has %d positions: it is trained on %d tokens",
        train.max_length, positions, positions,
    )  # fmt: skip
    lengths = {"max_length": positions}
    if train.max_completion_length:
        answer = min(train.max_completion_length, positions // 2)
        prompt = min(train.max_prompt_length or positions, positions - answer)
        lengths |= {"max_completion_length": answer, "max_prompt_length": prompt}
    return spec.model_copy(update={"train": train.model_copy(update=lengths)})


def fit(
    trainer: Any,
    spec: TrainSlice,
    setting: Setting,
    rows: int,
    prompts: Sequence[Asked] = (),
) -> dict[str, float]:
    """Train to the end, from the newest good checkpoint on, and return the summary metrics.

    `rows` is how many training rows the trainer was given; it drops those that do not fit.
    `prompts` are answered for `sample_logging` where that names none itself.
    """
    kept = _check_rows(trainer, rows, spec)
    if spec.load_best and trainer.eval_dataset is None:
        raise DataError(
            "logging.load_best: there are no held-out rows to choose the best checkpoint by; "
            "remove it, or hold rows out with `eval_fraction`"
        )
    journal = Journal(setting.out / FILE)
    clock, stop = Clock(), StopWhenAsked(setting.stopping)
    folder = setting.work / "checkpoints"
    trainer.remove_callback(PrinterCallback)
    for callback in (
        WriteJournal(journal),
        CommitCheckpoints(folder, setting.key, setting.identity, journal, trainer.healthy),
        ShowProgress(setting.progress),
        stop,
        ContinueCount(trainer),
        clock,
        Beat(),
        *([] if spec.algo in ONLINE else [Still()]),
        *log_samples(
            spec,
            prompts,
            trainer.processing_class,
            setting.out,
            _judges(trainer, spec),
            getattr(trainer, "explain", None),
        ),
    ):
        trainer.add_callback(callback)
    resume = checkpoints.newest(folder, key=setting.key, identity=setting.identity)
    if resume:
        LOG.info("continuing from checkpoint %s", resume.name)
    try:
        trainer.model.register_forward_pre_hook(beat)
        with loggers.open_for(trainer, spec, setting, resume), _named():
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    finally:
        journal.close()
    _check_steps(trainer, stop, resume)
    best = _load_best(trainer, folder) if spec.load_best else {}
    return _summary(trainer, setting.out / FILE, clock, kept, rows) | best


def _judges(trainer: Any, spec: TrainSlice) -> list[Judge]:
    """The rewards that are optimised, or else those that are only shown."""
    if spec.algo in ONLINE:
        return [unwrap(function) for function in trainer.reward_funcs]
    if not spec.shown_rewards:
        return []  # and a reward model generates nothing
    return judges(spec.shown_rewards, trainer.model, trainer.processing_class)


@contextmanager
def _named() -> Iterator[None]:
    """torch's two ways to say that memory ran out, as the one that Python has; and what it says of
    weights that are not finite."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        if "probability tensor contains" in str(error):
            raise Diverged(NOT_FINITE) from error
        raise


def _check_rows(trainer: Any, rows: int, spec: TrainSlice) -> int:
    kept = len(trainer.train_dataset)
    packed = spec.algo == "sft" and spec.train.packing
    dropped = 0 if packed else rows - kept
    limit = "max_prompt_length" if spec.algo in ONLINE else "max_length"
    most = MAX_FILTERED if spec.algo in ONLINE else MAX_DROPPED
    longest = getattr(spec.train, limit)
    if kept == 0 or dropped > most * rows:
        raise DataError(
            f"{dropped} of {rows} training rows have nothing left to learn from within "
            f"{longest} tokens (at most {most:.0%} may); raise train.{limit}, or shorten or "
            "filter the rows"
        )
    if dropped:
        LOG.warning("%d of %d rows do not fit in %s tokens", dropped, rows, longest)
    return kept


def _check_steps(trainer: Any, stop: StopWhenAsked, resume: Path | None) -> None:
    done, planned = trainer.state.global_step, trainer.state.max_steps
    if stop.stopped:
        raise Interrupted(
            f"stopped after step {done} of {planned}, checkpoint saved; the same command continues"
        )
    if done < 1 or done != planned:
        raise Diverged(
            f"{done} of {planned} planned optimizer steps were taken; there are fewer rows than "
            "one step needs: lower train.per_device_batch_size or add data"
        )


def _load_best(trainer: Any, folder: Path) -> dict[str, float]:
    """Go back to the weights of the checkpoint with the lowest held-out loss.

    Raises DataError if none was measured.
    """
    best = checkpoints.best(folder)
    if best is None:
        raise DataError(
            "logging.load_best: no checkpoint was measured; there were fewer steps than "
            "logging.save_steps"
        )
    trainer._load_from_checkpoint(str(best))
    step = checkpoints.step_of(best)
    LOG.info("kept the weights of step %d, which has the lowest held-out loss", step)
    return {"best_step": float(step)}


def _summary(trainer: Any, journal: Path, clock: Clock, kept: int, rows: int) -> dict[str, float]:
    history = [row.metrics for row in read(journal)]
    losses = [metrics["train/loss"] for metrics in history if "train/loss" in metrics]
    summary: dict[str, float] = {
        "steps": float(trainer.state.global_step),
        "train_loss": sum(losses) / len(losses),
        "rows": float(rows),
        "rows_dropped": float(max(rows - kept, 0)),
        "step_seconds": clock.seconds,
    }
    for name in FINAL:
        points = [metrics[name] for metrics in history if name in metrics]
        if points:
            summary[f"final_{name.removeprefix('train/')}"] = points[-1]
    tokens = [m["train/num_tokens"] for m in history if "train/num_tokens" in m]
    if tokens:
        summary["tokens"] = max(tokens)
    return summary
