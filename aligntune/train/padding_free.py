"""Batches without padding: the rows one after the other, each attending to itself alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

NAME = "sdpa_by_row"
"""The attention under transformers' interface: `sdpa` where the rows are not told apart."""
_SDPA: Callable[..., tuple[Tensor, None]] = AttentionInterface()["sdpa"]
_SDPA_MASK: Callable[..., Tensor | None] = AttentionMaskInterface()["sdpa"]
_FLAT: ContextVar[bool] = ContextVar("flat", default=False)


def flattened(input_ids: Tensor, real: Tensor) -> dict[str, Any]:
    """What a model is called with for a batch (B, T) as one row of the tokens that are `real`.

    Positions count from a row's first token on, wherever padding puts that: a model that has
    learned one vector for each would read another text. Names are those of transformers and of
    TRL's padding-free collator.
    """
    places = torch.arange(real.size(1), device=real.device)
    positions = (places - real.int().argmax(1, keepdim=True))[real]
    lengths = real.sum(1)
    ends = lengths[lengths > 0].cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends]).to(torch.int32)
    longest = int(lengths.max())
    return {
        "input_ids": input_ids[real][None],
        "position_ids": positions[None],
        "cu_seq_lens_q": starts,
        "cu_seq_lens_k": starts,
        "max_length_q": longest,
        "max_length_k": longest,
    }


@contextmanager
def no_mask() -> Iterator[None]:
    """While a flat batch is in the model: masks are not made, and rows have to be told apart."""
    token = _FLAT.set(True)
    try:
        yield
    finally:
        _FLAT.reset(token)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """transformers' sdpa, (B, H, T, D) -> (B, T, H, D), row by row where it is told of rows."""
    if cu_seq_lens_q is None:
        if _FLAT.get():
            raise RuntimeError(f"{type(module).__name__} does not hand on where rows begin")
        return _SDPA(module, query, key, value, attention_mask, **given)
    lengths = cu_seq_lens_q.diff().tolist()
    rows = zip(*(torch.split(each, lengths, dim=2) for each in (query, key, value)), strict=True)
    made = [_SDPA(module, *row, None, **given)[0] for row in rows]
    return torch.cat(made, dim=1), None


def _mask(**given: Any) -> Tensor | None:
    return None if _FLAT.get() else _SDPA_MASK(**given)


def attend_by_row(model: PreTrainedModel, longest: int) -> bool:
    """Switch `model` to an attention that can tell rows of up to `longest` tokens apart; False
    where it has a kind that cannot, or one that does not see all of such a row."""
    config = model.config.get_text_config()
    if config._attn_implementation == "sdpa" and sees_all(model, longest):
        model.set_attn_implementation(NAME)
    return bool(config._attn_implementation == NAME)


def sees_all(model: PreTrainedModel, longest: int) -> bool:
    """Whether the last of `longest` tokens sees the first in every layer that attends."""
    config = model.config.get_text_config()
    seen = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return bool(min(filter(None, seen), default=longest) >= longest)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
