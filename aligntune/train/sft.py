"""Supervised fine-tuning on TRL's SFTTrainer: loss on what the assistant says, and only on it."""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from aligntune.config.slices import TrainSlice
from aligntune.train.loop import Finite, Setting, arguments
from aligntune.train.lora import lora


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
    config = SFTConfig(
        **arguments(spec, setting, evaluates=heldout is not None),
        packing=spec.train.packing,
        completion_only_loss=True,
    )
    return _Trainer(
        model=model,
        args=config,
        train_dataset=train,
        eval_dataset=heldout,
        processing_class=tokenizer,
        peft_config=lora(spec.peft),
    )


def imitation_rows(rows: Dataset) -> Dataset:
    """One prompt and completion per assistant turn: {messages} -> {prompt, completion}.

    Every turn is learned once, whatever the chat template: templates that mark the assistant's
    words for a loss mask are the exception.
    """
    return rows.map(_per_turn, batched=True, remove_columns=rows.column_names)


def _per_turn(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    pairs = [
        (messages[:turn], messages[turn : turn + 1])
        for messages in batch["messages"]
        for turn, message in enumerate(messages)
        if message["role"] == "assistant"
    ]
    return {
        "prompt": [prompt for prompt, _ in pairs],
        "completion": [completion for _, completion in pairs],
    }
