"""What a critic learns."""

import torch
from torch import Tensor

from aligntune.losses.advantages import Reduce


def value_loss(values: Tensor, old: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """Half the squared error of each value, or of the value moved at most `clip` from `old`,
    whichever is larger (arXiv:2005.12729, section 3)."""
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2)


def explained_variance(
    values: Tensor, returns: Tensor, mask: Tensor, *, reduce: Reduce = lambda x: x
) -> float:
    """1 for a perfect critic, 0 for a constant one; 0 too where the returns do not vary.

    Of the tokens of all processes with `reduce`.
    """
    mask = mask.to(returns.dtype)
    error, target = (returns - values) * mask, returns * mask
    sums = reduce(torch.stack([mask.sum(), error.sum(), target.sum()]))
    means = sums[1:] / sums[0].clamp(min=1)
    unexplained = ((error - means[0]) * mask) ** 2
    all_of_it = ((target - means[1]) * mask) ** 2
    left, spread = reduce(torch.stack([unexplained.sum(), all_of_it.sum()])).tolist()
    return 1 - left / spread if spread > 0 else 0.0
