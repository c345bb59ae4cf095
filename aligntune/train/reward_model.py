"""Reward models on TRL's RewardTrainer: from pairs, as Bradley and Terry did, or from scores."""

from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import mse_loss
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

from aligntune.config.slices import TrainSlice
from aligntune.evaluate.forward import padded
from aligntune.models.head import head_of
from aligntune.train.loop import Finite, Setting, arguments, configured
from aligntune.train.lora import lora


class Pairs(Finite, RewardTrainer):  # type: ignore[misc]
    """-log sigmoid(chosen - rejected - margin), with the squared sum of both where it is asked for
    (`center_rewards_coefficient`). Rows are tokens already."""


class Regression(Finite, RewardTrainer):  # type: ignore[misc]
    """The squared error of the scores of single sequences."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["input_ids", "score"]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        wanted = inputs.pop("score")
        outputs = model(**inputs, use_cache=False)
        found = outputs.logits.squeeze(-1).float()
        loss = mse_loss(found, wanted)
        error = self.accelerator.gather_for_metrics((found - wanted).detach().abs())
        self._metrics["train" if self.model.training else "eval"]["error"].append(
            error.mean().item()
        )
        return (loss, outputs) if return_outputs else loss


def reward_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    heldout: Dataset | None,
    spec: TrainSlice,
    setting: Setting,
) -> Any:
    """A trainer of the score that `model`, which has one output, gives."""
    config = configured(
        RewardConfig,
        **arguments(spec, setting, evaluates=heldout is not None),
        center_rewards_coefficient=spec.train.center_rewards_coefficient or None,
        disable_dropout=not (spec.peft and spec.peft.dropout),
    )
    heads = [name for name, _ in head_of(model)]
    regression = spec.objective == "regression"
    kind = Regression if regression else Pairs
    return kind(
        model=model,
        args=config,
        data_collator=_Scored(tokenizer.pad_token_id) if regression else None,
        train_dataset=train,
        eval_dataset=heldout,
        processing_class=tokenizer,
        peft_config=lora(spec.peft, model, heads=heads),
    )


class _Scored:
    """A batch of {input_ids, score}, padded on the right."""

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids, mask = padded([row["input_ids"] for row in rows], self._pad, "right")
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "score": torch.tensor([row["score"] for row in rows], dtype=torch.float32),
        }
