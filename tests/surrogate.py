"""The loss of a policy as it is in the papers, which TRL's, in training, is held to."""

import torch
from torch import Tensor


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """How much better each answer is than the others of its prompt on average (RLOO,
    arXiv:2402.14740). (P, G) -> (P, G)"""
    size = rewards.size(1)
    return (rewards - rewards.mean(1, keepdim=True)) * size / (size - 1)


def clipped_surrogate(ratio: Tensor, advantages: Tensor, *, low: float, high: float) -> Tensor:
    """The loss of each token: nothing is gained by a ratio below 1 - `low` or above 1 + `high`
    (arXiv:1707.06347; with a `high` of its own arXiv:2503.14476).

    `advantages` have the shape of `ratio`, or (B, 1).
    """
    clipped = ratio.clamp(1 - low, 1 + high)
    return -torch.min(ratio * advantages, clipped * advantages)


def entropy(logits: Tensor) -> Tensor:
    """Of the next token's distribution, in nats. (..., V) -> (...)"""
    logps = logits.log_softmax(-1)
    return -(logps.exp() * logps).sum(-1)
