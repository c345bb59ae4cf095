"""Distances between two policies other than KL (arXiv:2602.04380).

A separable divergence is a sum over the vocabulary of d(p, q), where p is the policy's and q the
reference's probability of a token. `exact` computes it; from sampled tokens alone the sum is
estimated, in one of three ways:

    sampled     d(p, q): weighs tokens by p once too often, so it is small where p is
    sampled_is  d(p, q) / p: unbiased in value; for kl the k3 estimator
    score       the part of d's slope that multiplies log p: unbiased in gradient, value meaningless
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aligntune.losses import mirror

CHUNK = 2**24
"""Entries of (positions, vocabulary) whose distances are held at once in `exact`."""


@dataclass(frozen=True)
class Divergence:
    """A separable divergence by its coordinate."""

    distance: Callable[[Tensor, Tensor], Tensor]
    """(log p, log q) -> d(p, q) >= 0, 0 where p = q."""
    slope: Callable[[Tensor, Tensor], Tensor]
    """(log p, log q) -> the derivative of d(p, q) by p."""
    is_kl: bool = False


def divergence(kind: str) -> Divergence:
    """`prob_l2` is (p - q)^2 and `kl` is p ln(p/q) - p + q, coordinates of Bregman divergences;
    `l2` is (ln p - ln q)^2, which is none."""
    return _KNOWN[kind]


def neural(f: mirror.Mirror) -> Divergence:
    """The Bregman divergence of a mirror map."""
    return Divergence(
        lambda logps, reference: mirror.distance(f, logps, reference).to(logps.dtype),
        lambda logps, reference: (mirror.slope(f, logps) - mirror.slope(f, reference)).to(
            logps.dtype
        ),
    )


def estimate(logps: Tensor, reference: Tensor, how: Divergence, estimator: str) -> Tensor:
    """A term per sampled token to put into a loss; see the top of this module."""
    if estimator == "sampled":
        return how.distance(logps, reference)
    if estimator == "sampled_is":
        if how.is_kl:
            return _excess(reference - logps)
        return how.distance(logps, reference) * torch.exp(-logps)
    if estimator == "score":
        return how.slope(logps.detach(), reference) * logps
    raise ValueError(f"no such estimator: {estimator}")


def exact(logits: Tensor, reference: Tensor, how: Divergence) -> Tensor:
    """The divergence at each position, from the logits of both over the vocabulary.

    (..., V), (..., V) -> (...). In float32, a few positions at a time; what is needed for the
    gradient is computed again.
    """
    flat, fixed = (x.reshape(-1, x.size(-1)) for x in (logits, reference))
    rows = max(CHUNK // flat.size(-1), 1)

    def part(own: Tensor, other: Tensor) -> Tensor:
        logps, fixed = (_precise(x).log_softmax(-1) for x in (own, other))
        return how.distance(logps, fixed).sum(-1)

    parts = [
        checkpoint(part, flat[at : at + rows], fixed[at : at + rows], use_reentrant=False)
        for at in range(0, len(flat), rows)
    ]
    return torch.cat(parts).view(logits.shape[:-1])


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _excess(x: Tensor) -> Tensor:
    """e^x - x - 1."""
    return torch.expm1(x) - x


_KNOWN = {
    "prob_l2": Divergence(
        lambda logps, reference: (logps.exp() - reference.exp()) ** 2,
        lambda logps, reference: 2 * (logps.exp() - reference.exp()),
    ),
    "kl": Divergence(
        lambda logps, reference: logps.exp() * _excess(reference - logps),
        lambda logps, reference: logps - reference,
        is_kl=True,
    ),
    "l2": Divergence(
        lambda logps, reference: (logps - reference) ** 2,
        lambda logps, reference: 2 * (logps - reference) * torch.exp(-logps),
    ),
}
