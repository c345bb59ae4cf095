"""Whether a candidate exceeds a baseline by more than a margin: the tests behind gates.

One-sided, since a gate asks one question: at a confidence of 95 % a candidate that is no better
than the margin passes at most one time in twenty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from aligntune.evaluate.resample import Scores, standard_error, weakest
from aligntune.evaluate.stats import POWER, binary, bonett_price, coin_tail, paired


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
    margin is not 0. Other scores are resampled by prompt, see `resample.weakest`.
    """
    candidate, baseline = paired(candidate, baseline)
    change = (candidate - baseline) * (1 if higher_is_better else -1)
    if binary(candidate) and binary(baseline):
        low, high, above, below, error = _rates(change, margin, confidence)
    else:
        low, high, above, below = weakest(change, margin, confidence, resamples, seed)
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
