"""Our rewards, as TRL calls reward functions."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aligntune.config.rewards import Reward
from aligntune.data.rows import ANSWER, EXTRA
from aligntune.evaluate.generate import end_tokens
from aligntune.rewards import scorer
from aligntune.rewards.moment import Moment, at
from aligntune.rewards.probe import ANSWERS, probe
from aligntune.rewards.types import Sample, Scorer, last_user

Judge = Callable[..., list[float | None]]
"""A reward as TRL calls it: with `prompts`, `completions`, `completion_ids` and the dataset's other
columns, each one entry per answer."""


def judges(
    rewards: Sequence[Reward], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[Judge]:
    """One function per reward, each with a name of its own: metrics are kept by name."""
    ends = _ends(model, tokenizer)
    functions: list[Judge] = []
    names: set[str] = set()
    for reward in rewards:
        score = scorer(reward)
        name = _new(score.__name__, names)
        names.add(name)
        functions.append(_judge(score, name, ends))
    return functions


def tried(rewards: Sequence[Reward], rows: Sequence[Mapping[str, Any]]) -> None:
    """Try the rewards that are the user's own on the first rows of the data.

    Raises:
        ConfigError: one does not give a score for each; see `probe`.
    """
    shown = [
        _sample(row["prompt"], text, (1, 2), row.get(ANSWER), row.get(EXTRA), truncated=False)
        for row, text in zip(rows, ANSWERS, strict=False)
    ]
    for reward in rewards:
        probe(reward, shown)


def _judge(score: Scorer, name: str, ends: frozenset[int]) -> Judge:
    def judge(
        *,
        prompts: list[list[dict[str, str]]],
        completions: list[list[dict[str, str]]],
        completion_ids: list[list[int]],
        answer: list[str | None] | None = None,
        extra: list[str | None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        trainer_state: Any = None,
        **_: Any,
    ) -> list[float | None]:
        nothing = [None] * len(prompts)
        samples = [
            _sample(prompt, completion[0]["content"], ids, *given, truncated=ids[-1] not in ends)
            for prompt, completion, ids, *given in zip(
                prompts,
                completions,
                completion_ids,
                answer or nothing,
                extra or nothing,
                strict=True,
            )
        ]
        before = getattr(score, "failed", 0)
        with at(_moment(trainer_state, log_metric, log_extra)):
            scores = score(samples)
        if log_metric and (failed := getattr(score, "failed", 0) - before):
            log_metric(f"rewards/{name}/failed", float(failed))
        if log_metric and (unjudged := sum(value is None for value in scores)):
            log_metric(f"rewards/{name}/unjudged", unjudged / len(scores))
        return scores

    judge.__name__ = name
    return judge


def _sample(
    prompt: Sequence[dict[str, str]],
    text: str,
    ids: Sequence[int],
    answer: str | None,
    extra: str | None,
    *,
    truncated: bool,
) -> Sample:
    return Sample(
        prompt=last_user(prompt),
        completion=text,
        answer=answer,
        truncated=truncated,
        tokens=len(ids),
        columns=json.loads(extra or "{}"),
        conversation=prompt,
        ids=ids,
    )


def _moment(
    trainer_state: Any,
    log_metric: Callable[[str, float], None] | None,
    log_extra: Callable[[str, list[Any]], None] | None,
) -> Moment:
    step = trainer_state.global_step + 1 if trainer_state else None
    tools = {"trainer_state": trainer_state, "log_metric": log_metric, "log_extra": log_extra}
    return Moment(step, {**Moment().tools, **{k: v for k, v in tools.items() if v is not None}})


def _new(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer which was not cut off."""
    return frozenset({*end_tokens(model, tokenizer), tokenizer.pad_token_id} - {None})
