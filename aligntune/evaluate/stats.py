"""Intervals and comparisons of per-prompt scores.

The unit of resampling is the prompt: one score per prompt goes in, whatever it was averaged from.
"""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aligntune.errors import DataError
from aligntune.evaluate.resample import (
    FEW,
    Scores,
    bootstraps,
    resampled_means,
    standard_error,
    weakest,
)

Verdict = Literal["better", "worse", "inconclusive"]

POWER = NormalDist().inv_cdf(0.8)
"""Added to the quantile of the confidence, in standard errors: found four times in five."""


@dataclass(frozen=True)
class Interval:
    """A mean over prompts and the interval that holds the true one at the asked confidence."""

    mean: float
    low: float
    high: float
    count: int
    """Prompts. A single score that is not 0 or 1 has no width: `low` and `high` are its value."""
    standard_error: float


@dataclass(frozen=True)
class Difference:
    """Candidate minus baseline over the same prompts."""

    difference: float
    low: float
    high: float
    p_value: float
    """Two-sided, of the hypothesis that neither is better."""
    wins: int
    """Prompts on which the candidate is better."""
    losses: int
    ties: int
    verdict: Verdict
    """Not inconclusive only if the interval excludes 0 and the p-value allows it."""
    detectable: float
    """The true difference that would be found on so many prompts four times in five."""


def mean_interval(scores: Scores, *, confidence: float, resamples: int, seed: int) -> Interval:
    """The mean of `scores`, (N,), in Wilson's interval if all are 0 or 1, else a bootstrap's: by
    percentiles, or where they are too sure, with fewer than FEW prompts, by `bootstraps`."""
    scores = finite(scores)
    mean, count = float(scores.mean()), len(scores)
    if binary(scores):
        low, high = _wilson(mean, count, _normal_quantile(confidence))
    elif count < FEW:
        low, high, *_ = bootstraps(scores, mean, (1 + confidence) / 2, resamples, seed)
    else:
        low, high = _percentiles(resampled_means(scores, resamples, seed), confidence)
    return Interval(mean, low, high, count, standard_error(scores))


def paired_difference(
    candidate: Scores,
    baseline: Scores,
    *,
    confidence: float,
    resamples: int,
    seed: int,
    higher_is_better: bool = True,
) -> Difference:
    """How `candidate` differs from `baseline`, both (N,) and in the same order of prompts.

    Binary scores get McNemar's exact p-value with Bonett and Price's interval, which stays honest
    where few prompts or none differ; others a percentile bootstrap of the paired differences, or
    the weakest of three tests where fewer than FEW prompts differ.
    """
    candidate, baseline = paired(candidate, baseline)
    change = candidate - baseline
    up, down = int((change > 0).sum()), int((change < 0).sum())
    z = _normal_quantile(confidence)
    if binary(candidate) and binary(baseline):
        centre, error = bonett_price(up, down, len(change))
        low, high = max(centre - z * error, -1.0), min(centre + z * error, 1.0)
        p_value = mcnemar(up, down)
    else:
        error = standard_error(change)
        if up + down < FEW:
            one_sided = (1 + confidence) / 2
            low, high, *tails = weakest(change, 0.0, one_sided, resamples, seed)
            p_value = min(1.0, 2 * min(tails))
        else:
            means = resampled_means(change, resamples, seed)
            low, high = _percentiles(means, confidence)
            p_value = _bootstrap_p(means)
    wins, losses = (up, down) if higher_is_better else (down, up)
    verdict = _verdict(low, high, p_value <= 1 - confidence, higher_is_better)
    ties = len(change) - up - down
    detectable = (z + POWER) * error
    difference = float(change.mean())
    return Difference(difference, low, high, p_value, wins, losses, ties, verdict, detectable)


def paired(candidate: Scores, baseline: Scores) -> tuple[Scores, Scores]:
    """Both as arrays of finite numbers, one pair per prompt."""
    candidate, baseline = finite(candidate), finite(baseline)
    if len(candidate) != len(baseline):
        raise DataError(
            f"{len(candidate)} candidate scores cannot be paired with {len(baseline)} baseline "
            "scores; measure both on the same rows"
        )
    return candidate, baseline


def finite(scores: Scores) -> Scores:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or not len(scores):
        raise DataError(
            f"scores of shape {scores.shape} have no mean; one score per prompt is needed"
        )
    if not np.isfinite(scores).all():
        index = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DataError(f"score {index} is {scores[index]}; leave out prompts without a score")
    return scores


def mean_by_prompt(scores: Scores, prompts: NDArray[np.int64]) -> Scores:
    """(N,) -> the mean of each prompt's rows, (P,): they are not independent."""
    _, index = np.unique(prompts, return_inverse=True)
    means: Scores = np.bincount(index, weights=scores) / np.bincount(index)
    return means


def binary(scores: Scores) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _wilson(rate: float, count: int, z: float) -> tuple[float, float]:
    centre = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    # Rounding may put an end a hair inside a rate of exactly 0 or 1.
    return min(max(centre - half, 0.0), rate), max(min(centre + half, 1.0), rate)


def bonett_price(up: int, down: int, count: int) -> tuple[float, float]:
    """doi:10.3102/1076998611411915: centre and standard error of a Wald interval with one pair
    added to each discordant cell."""
    p_up, p_down = (up + 1) / (count + 2), (down + 1) / (count + 2)
    centre = p_up - p_down
    return centre, sqrt((p_up + p_down - centre**2) / (count + 2))


def mcnemar(up: int, down: int) -> float:
    """Two-sided binomial test of `up` against `down` discordant pairs at odds of one half."""
    return min(1.0, 2 * coin_tail(min(up, down), up + down))


def coin_tail(most: int, flips: int) -> float:
    """The probability of at most `most` heads in so many flips of a fair coin."""
    tail = ways = 1
    for k in range(most):
        ways = ways * (flips - k) // (k + 1)
        tail += ways
    return tail / (1 << flips)


def _percentiles(means: Scores, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _bootstrap_p(means: Scores) -> float:
    """Twice the share of resampled differences on the rarer side of 0."""
    rarer = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(means) + 1))


def _verdict(low: float, high: float, significant: bool, higher_is_better: bool) -> Verdict:
    if not significant or low <= 0 <= high:
        return "inconclusive"
    return "better" if (low > 0) == higher_is_better else "worse"
