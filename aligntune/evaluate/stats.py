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

Scores = NDArray[np.float64]
Verdict = Literal["better", "worse", "inconclusive"]

CHUNK = 2**20
"""Resampled scores held at once, about 12 MB, however many resamples and prompts there are."""


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


def mean_interval(scores: Scores, *, confidence: float, resamples: int, seed: int) -> Interval:
    """The mean of `scores`, (N,), in Wilson's interval if all are 0 or 1, else a bootstrap's."""
    scores = _finite(scores)
    mean, count = float(scores.mean()), len(scores)
    spread = float(scores.std(ddof=1)) if count > 1 else 0.0
    if _binary(scores):
        low, high = _wilson(mean, count, _normal_quantile(confidence))
    else:
        low, high = _percentiles(_resampled_means(scores, resamples, seed), confidence)
    return Interval(mean, low, high, count, spread / sqrt(count))


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
    where few prompts or none differ; others a percentile bootstrap of the paired differences.
    """
    candidate, baseline = _finite(candidate), _finite(baseline)
    if len(candidate) != len(baseline):
        raise DataError(
            f"{len(candidate)} candidate scores cannot be paired with {len(baseline)} baseline "
            "scores; measure both on the same rows"
        )
    change = candidate - baseline
    up, down = int((change > 0).sum()), int((change < 0).sum())
    if _binary(candidate) and _binary(baseline):
        low, high = _bonett_price(up, down, len(change), _normal_quantile(confidence))
        p_value = _mcnemar(up, down)
    else:
        means = _resampled_means(change, resamples, seed)
        low, high = _percentiles(means, confidence)
        p_value = _bootstrap_p(means, up + down)
    wins, losses = (up, down) if higher_is_better else (down, up)
    verdict = _verdict(low, high, p_value <= 1 - confidence, higher_is_better)
    ties = len(change) - up - down
    return Difference(float(change.mean()), low, high, p_value, wins, losses, ties, verdict)


def _finite(scores: Scores) -> Scores:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or not len(scores):
        raise DataError(
            f"scores of shape {scores.shape} have no mean; one score per prompt is needed"
        )
    if not np.isfinite(scores).all():
        index = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DataError(f"score {index} is {scores[index]}; leave out prompts without a score")
    return scores


def _binary(scores: Scores) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _wilson(rate: float, count: int, z: float) -> tuple[float, float]:
    centre = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    # Rounding may put an end a hair inside a rate of exactly 0 or 1.
    return min(max(centre - half, 0.0), rate), max(min(centre + half, 1.0), rate)


def _bonett_price(up: int, down: int, count: int, z: float) -> tuple[float, float]:
    """doi:10.3102/1076998611411915: a Wald interval with one pair added to each discordant cell."""
    p_up, p_down = (up + 1) / (count + 2), (down + 1) / (count + 2)
    centre = p_up - p_down
    half = z * sqrt((p_up + p_down - centre**2) / (count + 2))
    return max(centre - half, -1.0), min(centre + half, 1.0)


def _mcnemar(up: int, down: int) -> float:
    """Two-sided binomial test of `up` against `down` discordant pairs at odds of one half."""
    pairs = up + down
    tail = ways = 1
    for k in range(min(up, down)):
        ways = ways * (pairs - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << pairs))


def _resampled_means(scores: Scores, resamples: int, seed: int) -> Scores:
    """Means of `resamples` samples of `scores` with replacement. (N,) -> (resamples,)."""
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, CHUNK // len(scores))
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        chosen = generator.integers(len(scores), size=(stop - start, len(scores)), dtype=np.int32)
        means[start:stop] = scores[chosen].mean(axis=1)
    return means


def _percentiles(means: Scores, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _bootstrap_p(means: Scores, discordant: int) -> float:
    """Twice the share of resampled differences on the rarer side of 0."""
    rarer = min(int((means <= 0).sum()), int((means >= 0).sum()))
    bootstrap = 2 * (rarer + 1) / (len(means) + 1)
    # Resampling two prompts that agree never crosses 0; flipping signs at random does, in one of
    # 2^(n-1) cases, and no test of n differences may claim more than that.
    return min(1.0, max(bootstrap, float(2.0 ** (1 - discordant))))


def _verdict(low: float, high: float, significant: bool, higher_is_better: bool) -> Verdict:
    if not significant or low <= 0 <= high:
        return "inconclusive"
    return "better" if (low > 0) == higher_is_better else "worse"
