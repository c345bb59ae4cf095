"""Token weights from what masking a span does to the answer (arXiv:2602.09331).

A completion is T tokens long, its end-of-sequence token included. The first R of them reason, the
others answer. Spans are half-open ranges of token positions.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Span = tuple[int, int]
Mode = Literal["counterfactual", "inverted", "random"]

UNMASKED = 0.2
"""Importance of a reasoning token by itself; its span's is added to it."""
FLAT = 0.5
"""Lowest normalised importance of a reasoning token; the highest is 1."""
FORMATTING = 0.1
"""What is left of the importance of a token that only formats."""


def importance(
    length: int,
    spans: Sequence[Span],
    drops: Sequence[float],
    *,
    credit: Literal["full", "per_token"],
) -> Tensor:
    """Raw importance of each reasoning token. (R,)

    `drops[k]` is by how many nats the answer gets less likely when span k is masked; negative for
    a distractor. With `credit` "full" each token of a span gets all of it, else its share.
    """
    raw = torch.full((length,), UNMASKED)
    for (start, end), drop in zip(spans, drops, strict=True):
        raw[start:end] += drop if credit == "full" else drop / (end - start)
    return raw


def normalised(raw: Tensor) -> Tensor:
    """Importance mapped linearly to [0.5, 1]; 0.5 everywhere if it is flat. (R,) -> (R,)"""
    low, high = raw.min(), raw.max()
    if high == low:
        return torch.full_like(raw, FLAT)
    return FLAT + (1 - FLAT) * (raw - low) / (high - low)


def chosen(scaled: Tensor, mode: Mode, generator: torch.Generator | None = None) -> Tensor:
    """The importance that `mode` weighs by: as it is, mirrored, or drawn from [0, 1). (R,) -> (R,)

    The last two are ablations: what the weights do if they are wrong or mean nothing.
    """
    if mode == "inverted":
        return scaled.max() + scaled.min() - scaled
    if mode == "random":
        return torch.rand(scaled.shape, generator=generator)
    return scaled


def weights(
    scaled: Tensor,
    length: int,
    *,
    boost: float,
    min_weight: float,
    answer_weight: float,
    formatting: Tensor | None = None,
) -> Tensor:
    """Token weights of one completion of `length` tokens, with mean 1. (R,) -> (T,)

    `scaled` lies in [0, 1], where 0 is `min_weight` and 1 is `boost`. `formatting` (R,) marks
    tokens that only format.
    """
    if formatting is not None:
        scaled = torch.where(formatting, FORMATTING * scaled, scaled)
    reasoning = min_weight + (boost - min_weight) * scaled
    answer = reasoning.new_full((length - len(scaled),), answer_weight)
    return conserved(torch.cat([reasoning, answer]))


def conserved(weights: Tensor) -> Tensor:
    """`weights` scaled to mean 1, so that a completion counts as much as it did. (T,) -> (T,)"""
    return weights / weights.mean()
