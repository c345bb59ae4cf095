"""The run's rewards as metrics: what they say of the model's own answers."""

import json
from collections.abc import Callable, Sequence

from aligntune.config.rewards import Reward
from aligntune.evaluate.forward import Tick
from aligntune.evaluate.generate import Answer
from aligntune.evaluate.metrics import Metric, Row, Score, Subject, prompt_of
from aligntune.rewards import scorer
from aligntune.rewards.types import Sample

Judge = Callable[[Sequence[Sample]], list[float | None]]


def reward_metrics(rewards: Sequence[Reward]) -> dict[str, Metric]:
    """`rewards/<name>` for each, unweighted, and `reward`, their weighted sum."""
    judges = [scorer(reward) for reward in rewards]
    names = _distinct([f"rewards/{reward.reward_type}" for reward in rewards])
    found = {name: _metric(judge) for name, judge in zip(names, judges, strict=True)}
    if len(judges) > 1:
        weights = [reward.weight for reward in rewards]
        found["reward"] = _metric(_sum(judges, weights))
    return found


def _metric(judge: Judge) -> Metric:
    return Metric(
        _score(judge),
        (),
        generates=True,
        unscored="could be judged",
        remedy="give rows with what the reward compares with, such as an `answer`, or remove it "
        "from `rewards`",
    )


def _score(judge: Judge) -> Score:
    def score(
        subject: Subject, rows: Sequence[Row], answers: Sequence[Answer | None], progress: Tick
    ) -> list[float | None]:
        answered = [
            (index, _sample(row, answer))
            for index, (row, answer) in enumerate(zip(rows, answers, strict=True))
            if answer is not None
        ]
        judged = judge([sample for _, sample in answered])
        by_index = {index: value for (index, _), value in zip(answered, judged, strict=True)}
        return [by_index.get(index) for index in range(len(rows))]

    return score


def _sample(row: Row, answer: Answer) -> Sample:
    asked = [turn["content"] for turn in prompt_of(row) if turn["role"] == "user"]
    columns = json.loads(row.get("extra") or "{}")
    return Sample(
        asked[-1], answer.text, row.get("answer"), not answer.finished, columns, answer.tokens
    )


def _sum(judges: Sequence[Judge], weights: Sequence[float]) -> Judge:
    def total(samples: Sequence[Sample]) -> list[float | None]:
        columns = [judge(samples) for judge in judges]
        return [_weighted(scores, weights) for scores in zip(*columns, strict=True)]

    return total


def _weighted(scores: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """As in training: a reward that cannot judge is left out; None where none can."""
    parts = [w * s for w, s in zip(weights, scores, strict=True) if s is not None]
    return sum(parts) if parts else None


def _distinct(names: Sequence[str]) -> list[str]:
    """A repeated name gets its number."""
    return [
        name if names.index(name) == at else f"{name}-{names[:at].count(name) + 1}"
        for at, name in enumerate(names)
    ]
