"""What can be measured on held-out rows: one score per row, None where a row is too long.

To add one: a function here, a line in METRICS, and its name in `config.evaluation.Metric`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aligntune.config.model import Precision
from aligntune.errors import DataError
from aligntune.evaluate.forward import Tick, longest_sequence
from aligntune.evaluate.generate import Answer
from aligntune.evaluate.likelihood import Completion, encode, log_probs
from aligntune.models.chat import Message
from aligntune.rewards.match import matches

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


Score = Callable[[Subject, Sequence[Row], Sequence[Answer | None], Tick], list[float | None]]
"""(subject, N rows, the N answers to them if the metric generates, progress) -> N scores."""


@dataclass(frozen=True)
class Metric:
    score: Score
    columns: tuple[str, ...]
    """What a row needs to have to be measured."""
    higher_is_better: bool = True
    generates: bool = False
    """Whether it scores answers of the model; else it scores what the row holds."""
    passes: int = 1
    """Sequences that go through the model per row."""
    unscored: str = "fits the model"
    """What no row does that gets no score: `none of the 5 rows fits the model`."""
    remedy: str = (
        "raise model.max_seq_length, or lower evaluation.max_new_tokens if the model has too few "
        "positions"
    )

    def allows(self, row: Row) -> bool:
        return all(row.get(column) not in (None, "", []) for column in self.columns)


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


def exact_match(
    subject: Subject, rows: Sequence[Row], answers: Sequence[Answer | None], progress: Tick
) -> list[float | None]:
    """1 where the answer states the row's `answer`, else 0; see `match`."""
    return [
        None if answer is None else float(matches(answer.text, row["answer"]))
        for row, answer in zip(rows, answers, strict=True)
    ]


def nll(
    subject: Subject, rows: Sequence[Row], answers: Sequence[Answer | None], progress: Tick
) -> list[float | None]:
    """Mean negative log-likelihood of the last assistant turn, in nats per token of it."""
    completions = encode(
        subject.tokenizer,
        [(prompt_of(row), row["messages"][-1:]) for row in rows],
        [row.get("tools") for row in rows],
    )
    scores: list[float | None] = [None] * len(rows)
    fitting = [index for index, completion in enumerate(completions) if _fits(subject, completion)]
    chosen = [completions[index] for index in fitting]
    for index, log_prob in zip(fitting, _log_probs(subject, chosen, progress), strict=True):
        scores[index] = -log_prob / completions[index].length
    return scores


def preference_accuracy(
    subject: Subject, rows: Sequence[Row], answers: Sequence[Answer | None], progress: Tick
) -> list[float | None]:
    """1 where the chosen answer is likelier than the rejected one as a whole, 0.5 where equal."""
    tokenizer = subject.tokenizer
    chosen = encode(tokenizer, [(row["prompt"], row["chosen"]) for row in rows])
    rejected = encode(tokenizer, [(row["prompt"], row["rejected"]) for row in rows])
    scores: list[float | None] = [None] * len(rows)
    fitting = [
        index
        for index, pair in enumerate(zip(chosen, rejected, strict=True))
        if all(_fits(subject, completion) for completion in pair)
    ]
    both = [pair for index in fitting for pair in (chosen[index], rejected[index])]
    log_prob = _log_probs(subject, both, progress)
    for index, better, worse in zip(fitting, log_prob[::2], log_prob[1::2], strict=True):
        # Equal answers may end up in different batches, and then differ by rounding.
        equal = better == worse or chosen[index].tokens == rejected[index].tokens
        scores[index] = 0.5 if equal else float(better > worse)
    return scores


METRICS: dict[str, Metric] = {
    "exact_match": Metric(exact_match, ("answer",), generates=True),
    "nll": Metric(nll, ("messages",), higher_is_better=False),
    "preference_accuracy": Metric(preference_accuracy, ("prompt", "chosen", "rejected"), passes=2),
}


def _fits(subject: Subject, completion: Completion) -> bool:
    limit = longest_sequence(subject.model, subject.max_length)
    return completion.length > 0 and (limit is None or len(completion.tokens) <= limit)


def _log_probs(subject: Subject, completions: Sequence[Completion], progress: Tick) -> list[float]:
    found = log_probs(
        subject.model,
        completions,
        batch_size=subject.batch_size,
        progress=progress,
        precision=subject.precision,
    )
    return [float(value) for value in found]
