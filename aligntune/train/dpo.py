"""Direct preference optimisation (arXiv:2305.18290) on TRL's DPOTrainer."""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from aligntune.config.slices import TrainSlice
from aligntune.train.lm_head import lightened
from aligntune.train.loop import Finite, Setting, arguments, configured
from aligntune.train.lora import lora
from aligntune.train.rows import REFERENCE

SCORED = ("log_probs", "entropy", "mean_logits", "is_top1")
"""What TRL's trainer asks its head for; the contract test compares."""


class _Trainer(Finite, DPOTrainer):  # type: ignore[misc]
    """On rows that are tokens already: TRL's DPOTrainer, unlike its SFTTrainer, expects text."""

    def _prepare_dataset(
        self, dataset: Dataset, processing_class: Any, args: DPOConfig, dataset_name: str
    ) -> Dataset:
        # As TRL does: a prompt that fills `max_length` leaves nothing to learn from.
        longest = args.max_length
        return dataset.filter(lambda row: longest is None or len(row["prompt_ids"]) < longest)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset  # the rows have them, or nobody is going to train


def dpo_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    heldout: Dataset | None,
    spec: TrainSlice,
    setting: Setting,
) -> Any:
    """The reference is the policy the stage starts from: what the rows know of it already, or else
    the adapter switched off under LoRA, or a frozen copy that TRL loads from the same directory."""
    config = configured(
        DPOConfig,
        **arguments(spec, setting, evaluates=heldout is not None),
        beta=spec.train.beta,
        loss_type=[spec.train.loss_type],
        label_smoothing=spec.train.label_smoothing,
        precompute_ref_log_probs=set(REFERENCE) <= set(train.column_names),
    )
    trainer = _Trainer(
        model=model,
        args=config,
        train_dataset=train,
        eval_dataset=heldout,
        processing_class=tokenizer,
        peft_config=lora(spec.peft, model),
    )
    flipped = spec.train.label_smoothing
    if flipped and spec.train.loss_type == "sigmoid":
        # cDPO (https://ericmitchell.ai/cdpo.pdf, equation 3), which TRL has no more: its robust
        # loss is the same at this share, which it takes from nobody.
        trainer.loss_types, trainer.label_smoothing = ["robust"], flipped / (2 * flipped - 1)
    if trainer.ref_model is None:  # else both would have to be, and TRL has wrapped that one
        lightened(trainer, spec.train, SCORED)
    return trainer


def reference_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    spec: TrainSlice,
    setting: Setting,
) -> Any:
    """A trainer whose policy, without its adapter, is the reference. Its `compute_ref_log_probs` is
    the code, on the device, that the policy's log-probabilities come from in training."""
    config = configured(
        DPOConfig,
        **arguments(spec, setting, evaluates=False),
        precompute_ref_log_probs=True,
    )
    trainer = _Trainer(
        model=model,
        args=config,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora(spec.peft, model),
    )
    lightened(trainer, spec.train, SCORED[:1])
    return trainer
