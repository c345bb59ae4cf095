"""The critic's loss."""

import pytest
import torch

from aligntune.losses.values import explained_variance, value_loss


def test_without_movement_clipping_changes_nothing():
    old, returns = torch.tensor([0.1, -2.0, 3.0]), torch.tensor([1.0, 0.0, 3.0])
    assert torch.equal(value_loss(old, old, returns, clip=0.2), 0.5 * (old - returns) ** 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, 0.5 * 0.9**2),  # within the clip: plain
        (0.5, 0.5 * 0.8**2),  # moved past the clip towards the return: no more to gain
        (-0.5, 0.5 * 1.5**2),  # moved past it the wrong way: the whole error
    ],
)
def test_a_value_gains_nothing_by_moving_further_than_the_clip(value, expected):
    loss = value_loss(*torch.tensor([value, 0.0, 1.0]), clip=0.2)
    assert float(loss) == pytest.approx(expected)


def test_no_gradient_past_the_clip():
    values = torch.tensor([0.5, -0.5], requires_grad=True)
    value_loss(values, torch.zeros(2), torch.ones(2), clip=0.2).sum().backward()
    assert values.grad.tolist() == [0.0, -1.5]


def test_explained_variance():
    returns = torch.tensor([[1.0, 2.0, 99.0], [3.0, 99.0, 99.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert explained_variance(returns + 5, returns, mask) == 1.0
    assert explained_variance(torch.full_like(returns, 2.0), returns, mask) == 0.0
    assert explained_variance(-returns, returns, mask) == -3.0
    assert explained_variance(returns, torch.ones(2, 3), mask) == 0.0
    assert explained_variance(returns, returns, torch.zeros(2, 3)) == 0.0


def test_the_variance_of_halves_is_that_of_the_whole():
    """Each half asks for the sums of both, as two processes do."""
    values, returns = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    mask = (torch.arange(5) < torch.tensor([[5], [2], [3], [0]])).long()
    asked = []
    whole = explained_variance(values, returns, mask, reduce=lambda x: (asked.append(x), x)[1])
    sums = iter(asked)
    half = explained_variance(values[:2], returns[:2], mask[:2], reduce=lambda _: next(sums))
    assert half == pytest.approx(whole)
    assert whole != pytest.approx(explained_variance(values[:2], returns[:2], mask[:2]))
