"""Hyper-parameters, one tree for all algorithms; a name that a TRL trainer has keeps that name."""

from typing import Literal

from pydantic import Field

from aligntune.config.base import NeutralField, Strict
from aligntune.config.data import Dataset

Algo = Literal["sft", "dpo"]

LEARNING_RATE: dict[Algo, float] = {"sft": 2e-5, "dpo": 1e-6}
"""TRL's defaults for full fine-tuning; with `peft` ten times as much is usual."""


class Train(Strict):
    per_device_batch_size: int = Field(4, ge=1)
    """Rows (DPO: pairs) per device and forward pass."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Forward passes per optimizer step."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps; overrides `num_epochs`."""
    num_epochs: float = Field(1.0, gt=0)
    """Passes over the data where `max_steps` is not set."""
    learning_rate: float | None = Field(None, gt=0, lt=1)
    """Peak learning rate. Default: 2e-5 for sft and 1e-6 for dpo, ten times that with `peft`."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """Shape of the learning rate after warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    max_length: int | None = Field(None, ge=8)
    """Longest sequence in tokens. Default: `model.max_seq_length`."""
    packing: bool = False
    """sft: join short rows into full sequences. Changes how many rows an optimizer step sees."""
    beta: float = Field(0.1, gt=0)
    """dpo: how strongly the policy is held to the reference; larger stays closer."""
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust", "apo_zero", "apo_down"] = "sigmoid"
    """dpo: the preference loss, as TRL names it."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """dpo: the assumed share of flipped labels."""
    logging_steps: NeutralField[int] = Field(5, ge=1)
    """Optimizer steps between points of the training curves."""


class Peft(Strict):
    """LoRA (arXiv:2106.09685). Without this section all weights are trained."""

    r: int = Field(16, ge=1)
    """Rank of the update."""
    alpha: int = Field(32, ge=1)
    """The update is scaled by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the layers that get an adapter."""


class SftSection(Strict):
    """Supervised fine-tuning before the run's own algorithm."""

    datasets: tuple[Dataset, ...] = Field(min_length=1)
    """Its data."""
    train: Train = Train()
    """Its hyper-parameters; nothing is inherited from the run's `train`."""
    peft: Peft | None = None
    """Its adapter; default: the run's `peft`."""


def learning_rate(train: Train, algo: Algo, peft: Peft | None) -> float:
    """The configured learning rate, or the algorithm's default."""
    if train.learning_rate is not None:
        return train.learning_rate
    return LEARNING_RATE[algo] * (10 if peft else 1)
