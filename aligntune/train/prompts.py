"""Prompts that fit: TRL samples from any prompt, also from one that is too long."""

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

BATCH = 1000
COLUMNS = ("prompt", "answer")


def fitting(rows: Dataset, tokenizer: PreTrainedTokenizerBase, longest: int | None) -> Dataset:
    """The rows whose prompt has at most `longest` tokens in the chat template, with what rewards
    need of them."""
    rows = rows.select_columns([name for name in COLUMNS if name in rows.column_names])
    lengths = _lengths(rows, tokenizer)
    return rows.select(
        [row for row, length in enumerate(lengths) if longest is None or length <= longest]
    )


def _lengths(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    lengths: list[int] = []
    for batch in rows.select_columns("prompt").iter(BATCH):
        tokens = tokenizer.apply_chat_template(
            batch["prompt"], add_generation_prompt=True, tokenize=True, return_dict=True
        )
        lengths += [len(ids) for ids in tokens["input_ids"]]
    return lengths
