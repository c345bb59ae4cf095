"""Statistics over what several processes have."""

import pytest
import torch
from accelerate import Accelerator

from aligntune.train.measures import spread


@pytest.mark.parametrize("width", [1e-2, 3e-4, 1e-5])
def test_the_spread_of_ratios_near_1_is_theirs_and_not_rounding(width):
    ratios = 1 + width * torch.randn(4096, generator=torch.Generator().manual_seed(0))
    found = spread(ratios, Accelerator(cpu=True))
    exact = ratios.double()
    assert found["std"] == pytest.approx(exact.std(correction=0).item(), rel=1e-4)
    assert found["mean"] == pytest.approx(exact.mean().item(), rel=1e-12)
    assert (found["min"], found["max"]) == (ratios.min().item(), ratios.max().item())


def test_of_nothing_there_is_none():
    assert spread(torch.tensor([]), Accelerator(cpu=True)) == {}
