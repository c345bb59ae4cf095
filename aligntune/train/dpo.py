"""Direct preference optimisation (arXiv:2305.18290) on TRL's DPOTrainer."""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from aligntune.config.slices import TrainSlice
from aligntune.train.loop import Finite, Setting, arguments
from aligntune.train.lora import lora


class _Trainer(Finite, DPOTrainer):  # type: ignore[misc]
    pass


def dpo_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    heldout: Dataset | None,
    spec: TrainSlice,
    setting: Setting,
) -> Any:
    """The reference is the policy the stage starts from: the adapter switched off under LoRA,
    else a frozen copy that TRL loads from the same directory."""
    config = DPOConfig(
        **arguments(spec, setting, evaluates=heldout is not None),
        beta=spec.train.beta,
        loss_type=[spec.train.loss_type],
        label_smoothing=spec.train.label_smoothing,
    )
    columns = ["prompt", "chosen", "rejected"]
    return _Trainer(
        model=model,
        args=config,
        train_dataset=train.select_columns(columns),
        eval_dataset=heldout.select_columns(columns) if heldout else None,
        processing_class=tokenizer,
        peft_config=lora(spec.peft, model),
    )
