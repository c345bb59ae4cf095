"""How the losses of tokens become the loss of an optimizer step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Share:
    """What one micro-batch is of its optimizer step."""

    micro_batches: int
    """That the step is made of."""
    tokens: Tensor | float
    """Counted tokens per process in the whole step."""
    longest: int
    """The most tokens that an answer can have."""


def aggregate(losses: Tensor, mask: Tensor, loss_type: str, share: Share) -> Tensor:
    """This micro-batch's part of the step's loss; the parts add up to it.

    `grpo` averages over each answer, then over answers; `dapo` over all tokens of the step;
    `bnpo` over those of the micro-batch, so it alone depends on how a step is split;
    `dr_grpo` divides by the longest possible answers (arXiv:2503.20783).
    """
    mask = mask.to(losses.dtype)
    total = (losses * mask).sum()
    if loss_type == "dapo":
        return total / share.tokens
    if loss_type == "grpo":
        rows = (losses * mask).sum(1) / mask.sum(1).clamp(min=1)
        return rows.mean() / share.micro_batches
    if loss_type == "dr_grpo":
        return total / (losses.size(0) * share.longest) / share.micro_batches
    if loss_type == "bnpo":
        return total / mask.sum().clamp(min=1) / share.micro_batches
    raise ValueError(f"no such loss type: {loss_type}")
