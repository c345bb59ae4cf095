"""What answers are compared with, and how far the policy has moved since it gave them."""

import torch
from torch import Tensor

ALIKE = 1e-6
"""Rewards that are closer than this are the same up to rounding."""
_EPSILON = 1e-4
"""TRL's, added to standard deviations."""


def informative(rewards: Tensor) -> Tensor:
    """Which groups have two answers that are rewarded differently. (P, G) -> (P,)

    NaN is an answer that nothing could judge.
    """
    high = rewards.nan_to_num(-torch.inf).amax(1)
    low = rewards.nan_to_num(torch.inf).amin(1)
    return high - low > ALIKE


def group_advantages(rewards: Tensor, scale: str) -> Tensor:
    """How much better each of a prompt's answers is than all of them on average. (P, G) -> (P, G)

    In standard deviations (with G - 1) of the group or of the batch, or, with `scale` "none", in
    rewards (arXiv:2402.03300, 2508.08221, 2503.20783). Exactly 0 where a group is rewarded alike,
    whose mean may be off by a rounding that a division by the spread would make much of, and for
    NaN, an answer that nothing could judge.
    """
    centred = rewards - rewards.nanmean(1, keepdim=True)
    if scale == "group":
        centred = centred / (_deviation(rewards) + _EPSILON)
    elif scale == "batch":
        centred = centred / (_deviation(rewards.reshape(1, -1)) + _EPSILON)
    elif scale != "none":
        raise ValueError(f"no such scale: {scale}")
    return torch.where(informative(rewards)[:, None], centred, 0.0).nan_to_num(0.0)


def importance_ratio(logps: Tensor, old: Tensor, mask: Tensor, level: str) -> Tensor:
    """How much likelier the policy finds what was sampled than the one that sampled it.

    By `level`, of each "token" (B, T), or of each "sequence" (B, 1): the geometric mean of its
    counted tokens (GSPO, arXiv:2507.18071).
    """
    moved = logps - old
    if level == "token":
        return moved.exp()
    if level == "sequence":
        mask = mask.to(moved.dtype)
        counted = mask.sum(1, keepdim=True).clamp(min=1)
        return ((moved * mask).sum(1, keepdim=True) / counted).exp()
    raise ValueError(f"no such level: {level}")


def _deviation(values: Tensor) -> Tensor:
    """Of each row, with n - 1, of what is not NaN; 0 for fewer than two. (P, G) -> (P, 1)"""
    known = ~values.isnan()
    count = known.sum(1, keepdim=True)
    centred = torch.where(known, values - values.nanmean(1, keepdim=True), 0.0)
    return ((centred**2).sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
