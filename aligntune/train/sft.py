"""Supervised fine-tuning on TRL's SFTTrainer: loss on what the assistant says, or on everything."""

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
        completion_only_loss=spec.train.completion_only_loss,
        loss_type=spec.train.loss_type,
    )
    return _Trainer(
        model=model,
        args=config,
        train_dataset=train,
        eval_dataset=heldout,
        processing_class=tokenizer,
        peft_config=lora(spec.peft, model),
    )


def imitation_rows(rows: Dataset, *, prompts_too: bool = False) -> Dataset:
    """One prompt and completion per assistant turn: {messages} -> {prompt, completion}.

    Every turn is learned once, whatever the chat template: templates that mark the assistant's
    words for a loss mask are the exception. Where prompts are learned too, only the last turn makes
    a row, or what is said before it would be learned several times.
    """
    return rows.map(
        _per_turn,
        batched=True,
        remove_columns=rows.column_names,
        fn_kwargs={"last": prompts_too},
    )


def _per_turn(batch: dict[str, list[Any]], *, last: bool) -> dict[str, list[Any]]:
    pairs = []
    for messages in batch["messages"]:
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        for turn in turns[-1:] if last else turns:
            pairs.append((messages[:turn], messages[turn : turn + 1]))
    return {
        "prompt": [prompt for prompt, _ in pairs],
        "completion": [completion for _, completion in pairs],
    }
