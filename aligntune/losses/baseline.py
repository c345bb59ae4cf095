"""A success rate per prompt that is kept across steps, and what follows from it.

A discounted Beta-Bernoulli tracker (SPO, arXiv:2509.13232). B completions, all from one round of
sampling; those of a prompt share a belief.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CLAMP = 5.0
"""Largest advantage after normalisation, in standard deviations."""
NO_SPREAD = 1e-6
"""Standard deviations below this are rounding, not signal."""


@dataclass(frozen=True)
class Belief:
    """What is known of a prompt: a Beta(total, mass - total) over its success rate.

    As a mean of `mass` discounted rewards it holds for rewards on any scale: an update is the
    moving average value += eta (reward - value) with eta = 1 / (keep mass + 1).
    """

    total: float
    """Discounted sum of rewards."""
    mass: float
    """How many rewards that sum is worth."""

    @property
    def value(self) -> float:
        """The mean reward to expect; without mass there is none."""
        return self.total / self.mass


def updated(belief: Belief, rewards: Sequence[float], keep: float) -> Belief:
    """`belief` after one visit: history discounted once, however many rewards came of it.

    `keep` in [0, 1] is the share of the history that still holds.
    """
    return Belief(keep * belief.total + sum(rewards), keep * belief.mass + len(rewards))


def warm(rewards: Sequence[float], *, mass: float, prior: float, low: float, high: float) -> Belief:
    """The belief to start with after `rewards` of another policy, in [low, high]: their smoothed
    mean, which is worth `mass` rewards however many they are (SPO's appendix: 1/2 and 8)."""
    smoothed = (sum(rewards) + prior * (low + high)) / (len(rewards) + 2 * prior)
    return Belief(mass * smoothed, mass)


def kept(drift: float, *, half_life: float, least: float, most: float) -> float:
    """The share of a prompt's history that still holds for a policy that moved by `drift`.

    Both in mean absolute log-ratio per token; half is kept at `half_life`.
    """
    return min(max(math.pow(2, -drift / half_life), least), most)


def leave_one_out(belief: Belief, rewards: Sequence[float], keep: float) -> list[float]:
    """What each reward is compared with: the belief after the visit's other rewards.

    Independent of the reward itself. SPO's baseline for one reward, and RLOO's for a belief
    without mass.
    """
    total, mass = keep * belief.total, keep * belief.mass
    everything = total + sum(rewards)
    return [(everything - reward) / (mass + len(rewards) - 1) for reward in rewards]


def whitened(advantages: Tensor) -> Tensor:
    """Zero mean and unit variance over the batch, at most 5 in size. NaN, a row that nothing
    could judge, counts for nothing and gets 0. (B,) -> (B,)"""
    judged = advantages[~advantages.isnan()]
    if len(judged) < 2 or judged.std() < NO_SPREAD:
        return torch.zeros_like(advantages)
    scaled = (advantages - judged.mean()) / judged.std()
    return scaled.clamp(-CLAMP, CLAMP).nan_to_num(0.0)


def curriculum(rates: Tensor, floor: float) -> Tensor:
    """Sampling weights, highest for prompts that are solved half the time. (P,) -> (P,)

    Not normalised: `floor` for success rates of 0 and 1, and 0.5 more for one half.
    """
    rates = rates.clamp(0, 1)
    return (rates * (1 - rates)).sqrt() + floor
