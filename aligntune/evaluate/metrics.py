"""What can be measured on held-out rows: one score per row, None where a row is too long.

To add one: a function here, a line in METRICS, and its name in `config.evaluation.Metric`.
"""

from collections.abc import Sequence

from aligntune.evaluate.allowed import COLUMNS, PAIR
from aligntune.evaluate.forward import Tick, longest_sequence
from aligntune.evaluate.generate import Answer
from aligntune.evaluate.likelihood import Completion, encode, token_log_probs
from aligntune.evaluate.reference import kl_to_base
from aligntune.evaluate.style import STYLE
from aligntune.evaluate.types import Metric, Row, Subject, prompt_of
from aligntune.rewards.match import matches


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


def preference_margin(
    subject: Subject, rows: Sequence[Row], answers: Sequence[Answer | None], progress: Tick
) -> list[float | None]:
    """How much likelier the chosen answer is than the rejected one as a whole, in nats."""
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
        equal = chosen[index].tokens == rejected[index].tokens
        scores[index] = 0.0 if equal else better - worse
    return scores


def _prefers(margin: float) -> float:
    """1 where the chosen answer is the likelier one, 0.5 where both are alike."""
    return 0.5 if margin == 0 else float(margin > 0)


METRICS: dict[str, Metric] = {
    "exact_match": Metric(exact_match, COLUMNS["exact_match"], generates=True),
    "nll": Metric(nll, COLUMNS["nll"], higher_is_better=False, kept=True, unit="nats"),
    "perplexity": Metric(
        nll,
        COLUMNS["perplexity"],
        higher_is_better=False,
        diagnostic=True,
        geometric=True,
        kept=True,
        unit="",
    ),
    "preference_accuracy": Metric(preference_margin, PAIR, of=_prefers, passes=2, kept=True),
    "preference_margin": Metric(
        preference_margin,
        PAIR,
        diagnostic=True,
        passes=2,
        kept=True,
        unit="nats",
    ),
    **STYLE,
    "kl_to_base": Metric(
        kl_to_base,
        (),
        higher_is_better=False,
        generates=True,
        diagnostic=True,
        against_base=True,
        passes=2,
        kept=True,
        unit="nats",
        unscored="has an answer to compare",
    ),
}


def _fits(subject: Subject, completion: Completion) -> bool:
    limit = longest_sequence(subject.model, subject.max_length)
    return completion.length > 0 and (limit is None or len(completion.tokens) <= limit)


def _log_probs(subject: Subject, completions: Sequence[Completion], progress: Tick) -> list[float]:
    return [float(each.sum()) for each in token_log_probs(subject, completions, progress)]
