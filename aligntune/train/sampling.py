"""Answers sampled by the policy itself: each distinct prompt is read once, whatever the number of
answers to it, and answers that have ended cost nothing more."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TopKLogitsWarper, TopPLogitsWarper
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from aligntune.errors import Diverged
from aligntune.evaluate.forward import padded
from aligntune.train.kv_cache import growing_cache
from aligntune.train.logprobs import bare

KINDS = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers of a cache that rows can be taken out of."""
NOT_FINITE = (
    "the policy's probabilities are not finite, so nothing can be sampled; the same command goes "
    "on from the last checkpoint, else lower train.learning_rate"
)
CROWD = 0.75
"""Rows are only taken out of the cache when at most this share of them is still going on: each
time the rest is copied."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    length: int
    """In tokens, at most."""
    ends: frozenset[int]
    """Tokens that end an answer, and belong to it."""
    pad: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def can_sample(model: PreTrainedModel) -> bool:
    """Whether `model` is a decoder whose cache is one of keys and values."""
    takes = signature(type(model).forward).parameters
    return (
        not model.config.is_encoder_decoder
        and {"past_key_values", "attention_mask", "use_cache"} <= takes.keys()
        and not model._is_stateful
        and all(isinstance(layer, KINDS) for layer in growing_cache(model).layers)
    )


@torch.no_grad()
def sample(model: Any, prompts: Sequence[Sequence[int]], how: Sampling) -> list[list[int]]:
    """One answer to each of the prompts; a prompt may be there many times.

    `model` is one that `can_sample`, or that with an adapter around it.

    Raises:
        Diverged: the policy's probabilities are not finite.
    """
    distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    answers: list[list[int]] = [[] for _ in prompts]
    reader = _Reader(model)
    reader.read(*padded([*distinct], how.pad, "left"))
    reader.keep([distinct[tuple(prompt)] for prompt in prompts])
    asked = list(range(len(prompts)))  # what the rows of the cache answer
    for left in reversed(range(how.length)):
        tokens = drawn(reader.logits, how)
        for number, token in zip(asked, tokens.tolist(), strict=True):
            if not _ended(answers[number], how):
                answers[number].append(token)
        going = [row for row, number in enumerate(asked) if not _ended(answers[number], how)]
        if not going or not left:
            break
        if len(going) <= CROWD * len(asked):
            reader.keep(going)
            asked, tokens = [asked[row] for row in going], tokens[going]
        reader.read(tokens[:, None])
    return answers


def _ended(answer: Sequence[int], how: Sampling) -> bool:
    return bool(answer) and answer[-1] in how.ends


def drawn(logits: Tensor, how: Sampling) -> Tensor:
    """A token for each row. (N, V) -> (N,)

    One random number per row, and not one per token as `torch.multinomial` takes.
    """
    scores = logits.float() / how.temperature
    if how.top_k:
        scores = TopKLogitsWarper(min(how.top_k, scores.size(-1)))(None, scores)
    if how.top_p < 1:
        scores = TopPLogitsWarper(how.top_p)(None, scores)
    below = scores.softmax(-1).cumsum(-1, dtype=torch.float64)
    whole = below[:, -1:]
    if not bool(whole.isfinite().all()):
        raise Diverged(NOT_FINITE)
    at = torch.rand(whole.shape, dtype=torch.float64, device=whole.device) * whole
    # Rounding must not lead to a token behind the last that can be drawn.
    at = torch.minimum(at, torch.nextafter(whole, torch.zeros_like(whole)))
    return torch.searchsorted(below, at, right=True).squeeze(1)


class _Reader:
    """A model, what it has read in each of its rows, and what it expects next."""

    logits: Tensor
    """(N, V)"""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._bare = bare(model)
        self._cache = growing_cache(self._bare)
        self._takes = signature(type(self._bare).forward).parameters.keys()
        self._mask = torch.empty(0)
        self._next = torch.empty(0)

    def read(self, ids: Tensor, mask: Tensor | None = None) -> None:
        """Take in (N, S) tokens: prompts with a mask of what is real in them, or what was drawn."""
        device = self._bare.device
        if mask is None:
            positions = self._next
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(ids), 1)], dim=1)
        else:
            self._mask = mask.to(device)
            positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        options: dict[str, Any] = {"position_ids": positions, "logits_to_keep": 1}
        out = self._model(
            input_ids=ids.to(device),
            # Without padding there is nothing to mask.
            attention_mask=None if bool(self._mask.all()) else self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **{name: value for name, value in options.items() if name in self._takes},
        )
        self.logits = out.logits[:, -1]
        self._next = positions[:, -1:] + 1

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows, each as often as it is named."""
        index = torch.tensor(rows, device=self._mask.device)
        self._cache.batch_select_indices(index)
        self._mask, self._next = self._mask[index], self._next[index]
        self.logits = self.logits[index]
