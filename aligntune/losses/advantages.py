"""From the score of an answer to the advantage of each of its tokens."""

from collections.abc import Callable

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""Adds up a tensor over all processes."""


def kl_estimate(logps: Tensor, reference: Tensor, estimator: str) -> Tensor:
    """KL(policy || reference) at each token from that token alone, in nats.

    `k1` is unbiased and may be negative; `k2` is biased and never negative; `k3` is unbiased and
    never negative (http://joschu.net/blog/kl-approx.html).
    """
    log_ratio = reference - logps
    if estimator == "k1":
        return -log_ratio
    return log_ratio**2 / 2 if estimator == "k2" else torch.expm1(log_ratio) - log_ratio


def adapted(coefficient: float, kl: float, *, target: float, horizon: int, answers: int) -> float:
    """The weight of the KL penalty after a round of so many answers, which were `kl` nats each
    away from the reference on average (arXiv:1909.08593, section 2.2)."""
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * answers / horizon)


def token_rewards(scores: Tensor, penalties: Tensor, mask: Tensor) -> Tensor:
    """The reward of each token: minus its penalty, and the answer's score at its last token.

    `scores` has shape (B,); a row without any token gets nothing.
    """
    mask = mask.to(penalties.dtype)
    last = mask.sum(1, keepdim=True).long() - 1
    at_last = torch.zeros_like(mask).scatter(1, last.clamp(min=0), 1.0)
    return (at_last * scores[:, None] - penalties) * mask


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (arXiv:1506.02438) and the returns that values should match.

    `values[:, t]` is of the state before token t; behind the last token it is 0.
    """
    mask = mask.to(rewards.dtype)
    rewards, values = rewards * mask, values * mask
    following = torch.nn.functional.pad(values[:, 1:], (0, 1))
    errors = rewards + gamma * following - values
    advantages = torch.zeros_like(errors)
    running = errors.new_zeros(errors.size(0))
    for t in reversed(range(errors.size(1))):
        running = (errors[:, t] + gamma * lam * running) * mask[:, t]
        advantages[:, t] = running
    return advantages, advantages + values


def whiten(
    values: Tensor, mask: Tensor, *, keep_mean: bool = False, reduce: Reduce = lambda x: x
) -> Tensor:
    """`values` with unit variance, and mean 0 unless it is kept, over the counted tokens.

    The variance is the biased one, of the tokens of all processes with `reduce`.
    """
    mask = mask.to(values.dtype)
    count, total = reduce(torch.stack([mask.sum(), (values * mask).sum()]))
    mean = total / count.clamp(min=1)
    centred = (values - mean) * mask
    variance = reduce((centred**2).sum()) / count.clamp(min=1)
    scaled: Tensor = centred * torch.rsqrt(variance + 1e-8)
    return scaled + mean * mask if keep_mean else scaled
