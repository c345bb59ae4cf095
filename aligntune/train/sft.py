"""Supervised fine-tuning on TRL's SFTTrainer: loss on what the assistant says, or on everything."""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from aligntune.config.slices import TrainSlice
from aligntune.train.lm_head import lightened
from aligntune.train.loop import Finite, Setting, arguments, configured
from aligntune.train.lora import lora

SCORED = ("log_probs", "entropy", "is_top1")
"""What TRL's trainer asks its head for; the contract test compares."""


class _Trainer(Finite, SFTTrainer):  # type: ignore[misc]
    pass


def sft_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    heldout: Dataset | None,
    spec: TrainSlice,
    setting: Setting,
) -> Any:
    config = configured(
        SFTConfig,
        **arguments(spec, setting, evaluates=heldout is not None),
        packing=spec.train.packing,
        completion_only_loss=spec.train.completion_only_loss,
        loss_type=spec.train.loss_type,
    )
    trainer = _Trainer(
        model=model,
        args=config,
        train_dataset=train,
        eval_dataset=heldout,
        processing_class=tokenizer,
        peft_config=lora(spec.peft, model),
    )
    lightened(trainer, spec.train, SCORED)
    return trainer
