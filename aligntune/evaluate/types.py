"""What is measured, on what, and by which kind of function."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aligntune.config.model import Precision
from aligntune.errors import DataError
from aligntune.evaluate.allowed import has
from aligntune.evaluate.forward import Tick
from aligntune.evaluate.generate import Answer
from aligntune.models.chat import Message

Row = Mapping[str, Any]
"""A canonical row; a column that its type does not have is absent or None."""


@dataclass(frozen=True)
class Subject:
    """The model to measure, and how."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    precision: Precision
    batch_size: int
    max_length: int
    reference: Path | None = None
    """The model that training started from, where it has the same tokens."""
    trust_remote_code: bool = False


Score = Callable[[Subject, Sequence[Row], Sequence[Answer | None], Tick], list[float | None]]
"""(subject, N rows, the N answers to them if the metric generates, progress) -> N scores."""


def _same(score: float) -> float:
    return score


@dataclass(frozen=True)
class Metric:
    score: Score
    columns: tuple[str, ...]
    """What a row needs to have to be measured."""
    higher_is_better: bool = True
    generates: bool = False
    """Whether it scores answers of the model; else it scores what the row holds."""
    diagnostic: bool = False
    """Says what a model is like and not how good it is. Unless it is asked for by name, it takes
    the answers that are there and has none generated."""
    of: Callable[[float], float] = _same
    """What a row counts for, from its score; metrics with one `score` share its passes."""
    geometric: bool = False
    """The mean and its interval are of the scores, and then taken to the power of e."""
    against_base: bool = False
    """Needs the model that training started from."""
    passes: int = 1
    """Sequences that go through the model per row."""
    kept: bool = False
    """Whether rows go through a model for it, so that the scores are kept for the next time."""
    unit: str = "%"
    """`%` for shares of 1."""
    unscored: str = "fits the model"
    """What no row does that gets no score: `none of the 5 rows fits the model`."""
    remedy: str = (
        "raise model.max_seq_length, or lower evaluation.max_new_tokens if the model has too few "
        "positions"
    )

    def allows(self, row: Row) -> bool:
        return has(row, self.columns)


def prompt_of(row: Row) -> list[Message]:
    """What the model is asked: the conversation up to its last answer, or the row's prompt."""
    messages = row.get("messages")
    if not messages:
        return list(row["prompt"])
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"a conversation ends with a turn of {messages[-1]['role']!r}; its last turn must be "
            "the assistant's"
        )
    return list(messages[:-1])
