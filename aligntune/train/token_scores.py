"""What TRL's trainers want to know of each token, from logits that are all there."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FIELDS = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""The names that TRL has for it."""
BLOCK = 2**20
"""Logits that are worked on at once, in fp32: so few stay in the cache."""


def token_scores(
    logits: Tensor, targets: Tensor, temperature: float, wanted: Sequence[str]
) -> dict[str, Tensor]:
    """(N, V) logits and (N,) targets -> {field: (N,)}, in fp32, of the fields that are wanted.

    log_probs and entropy have gradients. As torch.log_softmax in fp32, but of what is as large as
    the logits nothing else is kept for the backward pass.
    """
    found = _TokenScores.apply(logits, targets, temperature, tuple(wanted))  # type: ignore[no-untyped-call]
    return {name: value for name, value in zip(FIELDS, found, strict=True) if value is not None}


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, temperature: float, wanted: tuple[str, ...]
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)  # of an entropy that is only logged there is none
        blocks = [
            _scores(logits[part].float() / temperature, targets[part], wanted)
            for part in _parts(logits)
        ]
        found = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
        ctx.save_for_backward(logits, targets, found.get("entropy"))
        ctx.temperature = temperature
        fixed = found.keys() - {"log_probs", "entropy"}
        ctx.mark_non_differentiable(*(found[name] for name in fixed))
        return tuple(found.get(name) for name in FIELDS)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_log_probs: Tensor | None, of_entropy: Tensor | None, *_: Any
    ) -> tuple[Tensor | None, ...]:
        logits, targets, entropy = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for part in _parts(logits):
            shifted, terms, total = _softmax(logits[part].float() / ctx.temperature)
            made = torch.zeros_like(terms)
            if of_log_probs is not None:
                weight = of_log_probs[part, None] / ctx.temperature
                made = (terms * (-weight / total)).scatter_add_(1, targets[part, None], weight)
            if of_entropy is not None:
                weight = of_entropy[part, None] / (ctx.temperature * total)
                made -= terms * (shifted - total.log() + entropy[part, None]) * weight
            gradient[part] = made
        return gradient, None, None, None


def _parts(logits: Tensor) -> list[slice]:
    size = max(1, BLOCK // logits.size(1))
    return [slice(start, start + size) for start in range(0, max(1, len(logits)), size)]


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, V) less their largest, the exponentials of that, and (n, 1) the sums of those.

    torch.softmax would be faster, but on a CPU its exponential is only good to 1e-5.
    """
    shifted = logits - logits.amax(-1, keepdim=True)
    terms = shifted.exp()
    return shifted, terms, terms.sum(-1, keepdim=True)


def _scores(logits: Tensor, targets: Tensor, wanted: tuple[str, ...]) -> dict[str, Tensor]:
    """Of (n, V) fp32 logits, (n,) each."""
    shifted, terms, total = _softmax(logits)
    log_total, own = total.log(), shifted.gather(1, targets[:, None])
    found = {"log_probs": own - log_total}
    if "entropy" in wanted:
        found["entropy"] = log_total - (terms * shifted).sum(-1, keepdim=True) / total
    if "log_sum_sq_probs" in wanted:
        found["log_sum_sq_probs"] = (terms * terms).sum(-1, keepdim=True).log() - 2 * log_total
    if "mean_logits" in wanted:
        found["mean_logits"] = logits.mean(-1, keepdim=True)
    if "is_top1" in wanted:
        # The first of equals, as TRL counts it; only where the target is at the top it is searched.
        top = own == 0
        top[top.clone()] = shifted[top[:, 0]].argmax(-1) == targets[top[:, 0]]
        found["is_top1"] = top
    return {name: value.squeeze(1) for name, value in found.items()}
