"""Distances between two policies other than KL, from the log-probabilities of sampled tokens.

A separable divergence is a sum over the vocabulary of d(p, q), where p is the policy's and q the
reference's probability of a token (arXiv:2602.04380). Only sampled tokens are seen here, so the
sum is estimated, in one of three ways:

    sampled     d(p, q): weighs tokens by p once too often, so it is small where p is
    sampled_is  d(p, q) / p: unbiased in value; for kl the k3 estimator
    score       the part of d's slope that multiplies log p: unbiased in gradient, value meaningless
"""

import torch
from torch import Tensor


def distance(logps: Tensor, reference: Tensor, kind: str) -> Tensor:
    """d(p, q) >= 0 of each token, 0 where p = q.

    `prob_l2` is (p - q)^2 and `kl` is p ln(p/q) - p + q, the coordinates of Bregman divergences;
    `l2` is (ln p - ln q)^2, which is none.
    """
    if kind == "prob_l2":
        return (logps.exp() - reference.exp()) ** 2
    if kind == "kl":
        return logps.exp() * _excess(reference - logps)
    if kind == "l2":
        return (logps - reference) ** 2
    raise ValueError(f"no such divergence: {kind}")


def estimate(logps: Tensor, reference: Tensor, kind: str, estimator: str) -> Tensor:
    """A term per sampled token to put into a loss; see the top of this module."""
    if estimator == "sampled":
        return distance(logps, reference, kind)
    if estimator == "sampled_is":
        if kind == "kl":
            return _excess(reference - logps)
        return distance(logps, reference, kind) * torch.exp(-logps)
    if estimator == "score":
        return _slope(logps.detach(), reference, kind) * logps
    raise ValueError(f"no such estimator: {estimator}")


def _slope(logps: Tensor, reference: Tensor, kind: str) -> Tensor:
    """The derivative of d(p, q) by p."""
    if kind == "prob_l2":
        return 2 * (logps.exp() - reference.exp())
    if kind == "kl":
        return logps - reference
    return 2 * (logps - reference) * torch.exp(-logps)


def _excess(x: Tensor) -> Tensor:
    """e^x - x - 1."""
    return torch.expm1(x) - x
