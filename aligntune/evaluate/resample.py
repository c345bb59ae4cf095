"""Means of resampled scores, and what they say where there are few."""

from collections.abc import Iterator
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

CHUNK = 2**20
"""Resampled scores held at once, about 12 MB, however many resamples and prompts there are."""
FEW = 100
"""Below so many scores the percentiles of resampled means are too sure: of 10 normal differences
with a true mean of 0 they find one in 11 % of all cases at a confidence of 95 %."""
ROUNDING = 1e-12
"""Means of the same numbers that are added up in another order are equal."""

Tails = tuple[float, float, float, float]
"""(low, high, p_above, p_below): one-sided bounds of a true mean, and the p-values of the
hypotheses that it is not above, and not below, a margin."""


def weakest(change: Scores, margin: float, confidence: float, resamples: int, seed: int) -> Tails:
    """The weakest of three tests of a mean, since each is too sure of something: percentiles and
    flipped signs of skewed scores, studentised means of scores that are mostly alike."""
    low, high, above, below = bootstraps(change, margin, confidence, resamples, seed)
    more, less = _flipped(change - margin, resamples, seed)
    return low, high, max(above, more), max(below, less)


def bootstraps(
    change: Scores, margin: float, confidence: float, resamples: int, seed: int
) -> Tails:
    """The weaker of two bootstraps, by percentiles that are widened and by studentised means."""
    count, mean, error = len(change), float(change.mean()), standard_error(change)
    blocks = [_moments(drawn) for drawn in _resampled(change, resamples, seed)]
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
    low = min(float(bound[0]) for bound in bounds)
    high = max(float(bound[1]) for bound in bounds)
    return low, high, max(p_above), max(p_below)


def standard_error(scores: Scores) -> float:
    """Of the mean; 0 for a single score."""
    count = len(scores)
    return float(scores.std(ddof=1)) / sqrt(count) if count > 1 else 0.0


def resampled_means(scores: Scores, resamples: int, seed: int) -> Scores:
    """Means of `resamples` samples of `scores` with replacement. (N,) -> (resamples,)."""
    return np.concatenate([drawn.mean(axis=1) for drawn in _resampled(scores, resamples, seed)])


def _resampled(scores: Scores, resamples: int, seed: int) -> Iterator[Scores]:
    """Samples of `scores` with replacement, in blocks of (some of the resamples, N)."""
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(scores))
    for start in range(0, resamples, rows):
        size = (min(rows, resamples - start), len(scores))
        yield scores[generator.integers(len(scores), size=size, dtype=np.int32)]


def _flipped(excess: Scores, resamples: int, seed: int) -> tuple[float, float]:
    """The shares of ways to flip the signs of `excess`, (N,), that make its mean as large, and as
    small: of all of them, or of `resamples` at random where there are more."""
    moved = excess[excess != 0]
    every = 2 ** len(moved) <= resamples
    if every:
        bits = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        sums = (bits * 2.0 - 1.0) @ moved
    else:
        sums = np.concatenate([signs @ moved for signs in _signs(len(moved), resamples, seed)])
    observed = float(moved.sum())
    near = ROUNDING * abs(observed)
    more, less = sums >= observed - near, sums <= observed + near
    return (float(more.mean()), float(less.mean())) if every else (_share(more), _share(less))


def _signs(count: int, resamples: int, seed: int) -> Iterator[Scores]:
    """1 and -1 at random, in blocks of (some of the resamples, count)."""
    both = np.array([1.0, -1.0])
    generator = np.random.default_rng(seed + 1)
    rows = max(1, CHUNK // count)
    for start in range(0, resamples, rows):
        size = (min(rows, resamples - start), count)
        yield both[generator.integers(2, size=size, dtype=np.int8)]


def _moments(drawn: Scores) -> tuple[Scores, Scores]:
    """Mean and standard error of each sample. (R, N) -> (R,), (R,)."""
    count = drawn.shape[1]
    spread = drawn.std(axis=1, ddof=1) if count > 1 else np.zeros(len(drawn))
    return drawn.mean(axis=1), spread / sqrt(count)


def _share(condition: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]") -> float:
    return (int(condition.sum()) + 1) / (len(condition) + 1)
