"""The run's rewards as metrics: what they say of the model's own answers."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

import torch

from aligntune.config.rewards import Reward, metric_names
from aligntune.evaluate.cache import Cache
from aligntune.evaluate.forward import Tick
from aligntune.evaluate.generate import Answer
from aligntune.evaluate.types import Metric, Row, Score, Subject, prompt_of
from aligntune.rewards import scorer
from aligntune.rewards.combine import combined
from aligntune.rewards.pretrained import chosen
from aligntune.rewards.probe import ANSWERS, probe
from aligntune.rewards.types import Sample, Scorer, last_user


def reward_metrics(
    rewards: Sequence[Reward], rows: Sequence[Row], cache: Cache | None = None
) -> dict[str, Metric]:
    """`rewards/<name>` for each, as it is, and `reward`, what they make together. What a model has
    judged before is in `cache`.

    Raises:
        ConfigError: a reward of the user's own, tried on the first `rows`, gives no scores.
    """
    tried = [
        _sample(row, Answer(text, 1, finished=True))
        for row, text in zip(rows, ANSWERS, strict=False)
    ]
    for reward in rewards:
        probe(reward, tried)
    judges = [_once(_kept(scorer(reward), at, reward, cache)) for at, reward in enumerate(rewards)]
    names = metric_names(rewards)
    found = {name: _metric(judge) for name, judge in zip(names, judges, strict=True)}
    if len(judges) > 1:
        found["reward"] = _metric(_total(judges, rewards))
    return found


def _metric(judge: Scorer) -> Metric:
    return Metric(
        _score(judge),
        (),
        generates=True,
        unit="",
        unscored="could be judged",
        remedy="give rows with what the reward compares with, such as an `answer`, or remove it "
        "from `rewards`",
    )


def _score(judge: Scorer) -> Score:
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
    prompt = prompt_of(row)
    return Sample(
        prompt=last_user(prompt),
        completion=answer.text,
        answer=row.get("answer"),
        truncated=not answer.finished,
        columns=json.loads(row.get("extra") or "{}"),
        tokens=answer.tokens,
        conversation=prompt,
    )


def _total(judges: Sequence[Scorer], rewards: Sequence[Reward]) -> Scorer:
    def total(samples: Sequence[Sample]) -> list[float | None]:
        columns = [judge(samples) for judge in judges]
        scores = torch.tensor(
            [
                [math.nan if score is None else score for score in row]
                for row in zip(*columns, strict=True)
            ],
            dtype=torch.float64,
        )
        sums = combined(scores.view(-1, len(rewards)), rewards).rewards.tolist()
        return [None if math.isnan(value) else value for value in sums]

    return total


def _kept(judge: Scorer, at: int, reward: Reward, cache: Cache | None) -> Scorer:
    """`judge`; if it is a model that is known, it judges nothing that it has judged before."""
    identity = cache.judges.get(at) if cache else None
    # A failure's value would be kept, too.
    if cache is None or identity is None or reward.on_error != "stop":
        return judge
    what = {
        "judge": reward.reward_type,
        "params": reward.params,
        "model": identity,
        "device": chosen(reward.device).type,
    }

    def kept(samples: Sequence[Sample]) -> list[float | None]:
        return cache.scores(what, [asdict(one) for one in samples], lambda: judge(samples))

    return kept


def _once(judge: Scorer) -> Scorer:
    """`judge`, which does not judge the same answers again as long as there are no others."""
    last: list[tuple[Sequence[Sample], list[float | None]]] = []

    def remembered(samples: Sequence[Sample]) -> list[float | None]:
        if not last or last[0][0] != samples:
            last[:] = [(samples, judge(samples))]
        return last[0][1]

    return remembered
