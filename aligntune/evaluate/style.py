"""What a model's answers are like, whatever they are worth: one score per answer."""

from collections.abc import Callable, Sequence

from aligntune.evaluate.forward import Tick
from aligntune.evaluate.generate import Answer
from aligntune.evaluate.types import Metric, Row, Score, Subject
from aligntune.rewards.tone import refuses


def _each(judge: Callable[[Answer], float | None]) -> Score:
    def score(
        subject: Subject, rows: Sequence[Row], answers: Sequence[Answer | None], progress: Tick
    ) -> list[float | None]:
        scores = [None if answer is None else judge(answer) for answer in answers]
        return [None if score is None else float(score) for score in scores]

    return score


def _distinct(n: int) -> Callable[[Answer], float | None]:
    """The share of an answer's word n-grams that are different; None where it has none.

    By answer, and not over all answers as in arXiv:1510.03055, since only then do two models
    compare prompt by prompt, whatever number of prompts there is.
    """

    def share(answer: Answer) -> float | None:
        words = answer.text.lower().split()
        grams = list(zip(*(words[start:] for start in range(n)), strict=False))
        return len(set(grams)) / len(grams) if grams else None

    return share


def _metric(judge: Callable[[Answer], float | None], *, higher: bool, unit: str = "%") -> Metric:
    return Metric(
        _each(judge),
        (),
        higher_is_better=higher,
        generates=True,
        diagnostic=True,
        unit=unit,
        unscored="has an answer to judge",
        remedy="look at the answers in predictions.parquet, or remove it from evaluation.metrics",
    )


STYLE: dict[str, Metric] = {
    "answer_tokens": _metric(lambda answer: answer.tokens, higher=False, unit="tokens"),
    "finished_rate": _metric(lambda answer: answer.finished, higher=True),
    "distinct_1": _metric(_distinct(1), higher=True),
    "distinct_2": _metric(_distinct(2), higher=True),
    "refusal_rate": _metric(lambda answer: refuses(answer.text), higher=False),
}
