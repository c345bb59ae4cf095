"""Attention for the three shapes that an online algorithm has on a CPU, under one name.

A whole batch attends by transformers' own `sdpa`. Answers that share prompts are one row of tokens,
in which every answer attends to its own prompt and to itself. A token that is sampled is one query
per sequence: torch's fused kernel takes ten times as long for that in bf16 as two small products.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

USUAL = ("sdpa", "sdpa_by_row")
"""The attentions that this one stands in for."""
SUFFIX = "_of_groups"
Attention = Callable[..., tuple[Tensor, None]]
_SHARED: ContextVar[bool] = ContextVar("shared", default=False)


class Groups(NamedTuple):
    """Where in a row of N tokens D prompts of at most S tokens and B answers of at most T are."""

    prompts: Tensor
    """(D, S) places in the row, anything behind a prompt's end."""
    answers: Tensor
    """(B, T) the same."""
    of: Tensor
    """(B,) which prompt an answer is to."""
    mask: Tensor
    """(B, 1, T, S + T) whether a token of an answer sees one of its prompt, or of itself."""
    places: Tensor
    """(N,) where each token is among all those of `prompts` and then of `answers`."""


@contextmanager
def sharing() -> Iterator[None]:
    """While a row with `Groups` is in the model: no mask is made for it."""
    token = _SHARED.set(True)
    try:
        yield
    finally:
        _SHARED.reset(token)


def attend_by_group(model: PreTrainedModel) -> bool:
    """Switch `model` to this attention; False where it has one that this cannot stand in for."""
    config = model.config.get_text_config()
    usual = config._attn_implementation
    if usual in USUAL:
        _register(usual)
        model.set_attn_implementation(usual + SUFFIX)
    return bool(config._attn_implementation in {name + SUFFIX for name in USUAL})


def _register(usual: str) -> None:
    attention, mask = AttentionInterface()[usual], AttentionMaskInterface()[usual]

    def attend(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        groups: Groups | None = None,
        **given: Any,
    ) -> tuple[Tensor, None]:
        if groups is not None:
            return _shared(attention, module, query, key, value, groups, **given), None
        if _SHARED.get():
            raise RuntimeError(f"{type(module).__name__} does not hand on where answers begin")
        if query.size(2) == 1 and given.get("position_bias") is None:
            return _single(query, key, value, attention_mask, given.get("scaling")), None
        usually: tuple[Tensor, None] = attention(module, query, key, value, attention_mask, **given)
        return usually

    def masked(*args: Any, **given: Any) -> Tensor | None:
        made: Tensor | None = None if _SHARED.get() else mask(*args, **given)
        return made

    AttentionInterface.register(usual + SUFFIX, attend)
    AttentionMaskInterface.register(usual + SUFFIX, masked)


def _single(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> Tensor:
    """One query per sequence: heads that share keys are one product.

    (B, H, 1, E), (B, K, L, E), (B, K, L, E), (B, 1, 1, L) -> (B, 1, H, E)
    """
    rows, heads, _, width = query.shape
    grouped = query.reshape(rows, key.size(1), -1, width).to(key.dtype)
    with torch.autocast(query.device.type, enabled=False):
        scores = torch.matmul(grouped, key.transpose(2, 3)).float()
        scores = scores * (width**-0.5 if scaling is None else scaling)
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores = scores + mask
        attended = torch.matmul(scores.softmax(-1).to(value.dtype), value)
    return attended.reshape(rows, 1, heads, value.size(3))


def _shared(
    attention: Attention,
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    groups: Groups,
    **given: Any,
) -> Tensor:
    """(1, H, N, E), (1, K, N, E), (1, K, N, E) -> (1, N, H, E)"""
    given |= {"is_causal": None}
    made = []
    of_prompts = [_taken(each, groups.prompts) for each in (query, key, value)]
    if groups.prompts.numel():
        # Behind a prompt's end is nothing that its tokens could see.
        whole = given | {"is_causal": True}
        made.append(attention(module, *of_prompts, None, **whole)[0].flatten(0, 1))
    asked = _taken(query, groups.answers)
    seen = [
        torch.cat([prompt.index_select(0, groups.of), _taken(each, groups.answers)], dim=2)
        for prompt, each in zip(of_prompts[1:], (key, value), strict=True)
    ]
    made.append(attention(module, asked, *seen, groups.mask, **given)[0].flatten(0, 1))
    return torch.cat(made).index_select(0, groups.places)[None]


def _taken(row: Tensor, places: Tensor) -> Tensor:
    """(1, H, N, E), (R, L) -> (R, H, L, E)"""
    taken = row[0].index_select(1, places.flatten())
    return taken.view(len(taken), *places.shape, row.size(3)).transpose(0, 1)
