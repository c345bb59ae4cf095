"""A step's loss does not depend on how the step is split, except where the method says so."""

import pytest
import torch

from aligntune.losses.aggregate import Share, aggregate

LOSSES = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(6) < torch.tensor([6, 1, 3, 2, 5, 4, 1, 2])[:, None]).long()


def step(loss_type, parts):
    share = Share(parts, float(MASK.sum()), 6)
    pieces = zip(LOSSES.chunk(parts), MASK.chunk(parts), strict=True)
    return float(sum(aggregate(losses, mask, loss_type, share) for losses, mask in pieces))


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_splitting_a_step_changes_nothing(loss_type):
    assert step(loss_type, 1) == pytest.approx(step(loss_type, 4), abs=1e-12)


def test_bnpo_is_the_exception():
    assert step("bnpo", 1) == pytest.approx(step("dapo", 1), abs=1e-12)
    assert step("bnpo", 1) != pytest.approx(step("bnpo", 4), abs=1e-3)


def test_definitions():
    losses, mask = torch.tensor([[1.0, 3.0], [10.0, 99.0]]), torch.tensor([[1, 1], [1, 0]])
    share = Share(1, 3.0, 5)
    expected = {"grpo": (2 + 10) / 2, "dapo": 14 / 3, "bnpo": 14 / 3, "dr_grpo": 14 / 10}
    got = {name: float(aggregate(losses, mask, name, share)) for name in expected}
    assert got == pytest.approx(expected)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo"])
def test_a_micro_batch_without_tokens_adds_nothing(loss_type):
    empty = torch.zeros_like(MASK)
    assert float(aggregate(LOSSES, empty, loss_type, Share(1, 1.0, 6))) == 0.0
