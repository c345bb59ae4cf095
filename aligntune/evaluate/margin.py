"""Whether a candidate exceeds a baseline by more than a margin: the tests behind gates.

One-sided, since a gate asks one question: at a confidence of 95 % a candidate that is no better
than the margin passes at most one time in twenty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from aligntune.evaluate.stats import (
    CHUNK,
    POWER,
    Scores,
    binary,
    bonett_price,
    coin_tail,
    paired,
    resampled,
    standard_error,
)

ROUNDING = 1e-12
"""Means of the same numbers that are added up in another order are equal."""


@dataclass(frozen=True)
class Shift:
    """How much better a candidate is than a baseline on the same prompts."""

    improvement: float
    """Positive where the candidate is better, whichever direction the metric has."""
    low: float
    high: float
    """Each a one-sided bound of the true improvement."""
    p_above: float
    """Of the hypothesis that the true improvement is not above the margin."""
    p_below: float
    """Of the hypothesis that it is not below it."""
    detectable: float
    """How far above the margin an improvement has to be to be found four times in five."""
    wins: int
    losses: int
    ties: int


def shift(
    candidate: Scores,
    baseline: Scores,
    *,
    margin: float,
    confidence: float,
    resamples: int,
    seed: int,
    higher_is_better: bool = True,
) -> Shift:
    """`candidate` against `baseline`, both (prompts,) and in one order.

    Shares of right answers are compared by McNemar's exact test, or by Tango's score test where the
    margin is not 0. Other scores are resampled by prompt, and what is reported is the weakest of
    three tests, since each is too sure of something: percentiles and flipped signs of skewed
    scores, studentised means of scores that are mostly alike.
    """
    candidate, baseline = paired(candidate, baseline)
    change = (candidate - baseline) * (1 if higher_is_better else -1)
    if binary(candidate) and binary(baseline):
        low, high, above, below, error = _rates(change, margin, confidence)
    else:
        low, high, above, below = _means(change, margin, confidence, resamples, seed)
        error = standard_error(change)
    return Shift(
        improvement=float(change.mean()),
        low=low,
        high=high,
        p_above=above,
        p_below=below,
        detectable=(NormalDist().inv_cdf(confidence) + POWER) * error,
        wins=int((change > 0).sum()),
        losses=int((change < 0).sum()),
        ties=int((change == 0).sum()),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted so that, at any level, the chance of one false discovery among all of
    them is at most that level (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _rates(
    change: Scores, margin: float, confidence: float
) -> tuple[float, float, float, float, float]:
    """(low, high, p_above, p_below, standard error)."""
    up, down = int((change > 0).sum()), int((change < 0).sum())
    centre, error = bonett_price(up, down, len(change))
    z = NormalDist().inv_cdf(confidence)
    low, high = max(centre - z * error, -1.0), min(centre + z * error, 1.0)
    if margin == 0:
        above, below = coin_tail(down, up + down), coin_tail(up, up + down)
    else:
        above = _tango(up, down, len(change), margin)
        below = _tango(down, up, len(change), -margin)
    return low, high, above, below, error


def _tango(up: int, down: int, count: int, margin: float) -> float:
    """The p-value of up - down <= margin * count by Tango's score test (Statistics in Medicine 17,
    1998, 891-908) with a continuity correction, without which it passes a little too often."""
    linear = -up - down + (2 * count - up + down) * margin
    root = sqrt(max(linear**2 + 8 * count * down * margin * (1 - margin), 0.0))
    share = (root - linear) / (4 * count)
    variance = count * (2 * share + margin * (1 - margin))
    excess = up - down - count * margin - 0.5
    if variance <= 0:
        return 0.0 if excess > 0 else 1.0
    return 1 - NormalDist().cdf(excess / sqrt(variance))


def _means(
    change: Scores, margin: float, confidence: float, resamples: int, seed: int
) -> tuple[float, float, float, float]:
    """(low, high, p_above, p_below)."""
    count, mean, error = len(change), float(change.mean()), standard_error(change)
    blocks = [_moments(drawn) for drawn in resampled(change, resamples, seed)]
    means, errors = (np.concatenate(part) for part in zip(*blocks, strict=True))
    # The bootstrap's spread is that of n - 1 in n.
    widened = mean + (means - mean) * sqrt(count / (count - 1)) if count > 1 else means
    with np.errstate(divide="ignore", invalid="ignore"):
        studentised = np.nan_to_num((means - mean) / errors, posinf=np.inf, neginf=-np.inf)
        distance = np.float64(mean - margin) / error
    tail = 1 - confidence
    bounds = [np.quantile(widened, [tail, confidence])]
    p_above, p_below = [_share(widened <= margin)], [_share(widened >= margin)]
    if error > 0:
        inverted = np.quantile(studentised, [confidence, tail], method="nearest")
        ends = np.array([change.min(), change.max()])
        bounds.append(np.where(np.isfinite(inverted), mean - inverted * error, ends))
        p_above.append(_share(studentised >= distance))
        p_below.append(_share(studentised <= distance))
    flipped, observed = _flipped(change - margin, resamples, seed), mean - margin
    p_above.append(_share(flipped >= observed - ROUNDING * abs(observed)))
    p_below.append(_share(flipped <= observed + ROUNDING * abs(observed)))
    # There are no more ways to flip the signs than these.
    least = float(2.0 ** -int((change != margin).sum()))
    low = min(float(bound[0]) for bound in bounds)
    high = max(float(bound[1]) for bound in bounds)
    return low, high, max(*p_above, least), max(*p_below, least)


def _flipped(excess: Scores, resamples: int, seed: int) -> Scores:
    """The mean of `excess` with random signs, again and again. (N,) -> (resamples,)."""
    both = np.array([1.0, -1.0])
    generator = np.random.default_rng(seed + 1)
    rows = max(1, CHUNK // len(excess))
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        signs = both[generator.integers(2, size=(stop - start, len(excess)), dtype=np.int8)]
        means[start:stop] = signs @ excess / len(excess)
    return means


def _moments(drawn: Scores) -> tuple[Scores, Scores]:
    """Mean and standard error of each sample. (R, N) -> (R,), (R,)."""
    count = drawn.shape[1]
    spread = drawn.std(axis=1, ddof=1) if count > 1 else np.zeros(len(drawn))
    return drawn.mean(axis=1), spread / sqrt(count)


def _share(condition: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]") -> float:
    return (int(condition.sum()) + 1) / (len(condition) + 1)
