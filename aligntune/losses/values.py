"""What a critic learns."""

import torch
from torch import Tensor


def value_loss(values: Tensor, old: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """Half the squared error of each value, or of the value moved at most `clip` from `old`,
    whichever is larger (arXiv:2005.12729, section 3)."""
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 for a perfect critic, 0 for a constant one; 0 too where the returns do not vary."""
    counted = mask.bool()
    error, target = (returns - values)[counted], returns[counted]
    spread = target.var(correction=0) if target.numel() else target.new_zeros(())
    return float(1 - error.var(correction=0) / spread) if spread > 0 else 0.0
