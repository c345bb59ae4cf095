"""Statistics of a tensor whose parts lie on several processes."""

from typing import Any

import torch
from torch import Tensor


def spread(values: Tensor, accelerator: Any) -> dict[str, float]:
    """`mean`, `std` (biased), `min` and `max` over the values of all processes, of any shape; empty
    where there is none."""
    # In fp32 the squares of ratios near 1 differ by less than they are rounded by.
    exact = values.double()
    sums = torch.stack([exact.new_tensor(exact.numel()), exact.sum(), (exact**2).sum()])
    size, total, squares = accelerator.reduce(sums, reduction="sum").tolist()
    if not size:
        return {}
    mean = total / size
    beyond = values.new_tensor([torch.inf])  # a process may have no values
    ends = torch.stack([torch.cat([part.flatten(), beyond]).min() for part in (values, -values)])
    low, negative_high = accelerator.gather(ends).view(-1, 2).amin(0).tolist()
    return {
        "mean": mean,
        "std": max(squares / size - mean**2, 0.0) ** 0.5,
        "min": low,
        "max": -negative_high,
    }
