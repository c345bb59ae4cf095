"""Advantages against numbers worked out by hand or published, and against definitions."""

import pytest
import torch

from aligntune.losses.advantages import adapted, gae, kl_estimate, token_rewards, whiten

REWARDS = torch.tensor([[0.1, -0.2, 0.0, 1.0]], dtype=torch.float64)
VALUES = torch.tensor([[0.5, 0.4, 0.3, 0.2]], dtype=torch.float64)
ALL = torch.ones(1, 4)


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        (1.0, [0.4, 0.4, 0.7, 0.8]),
        (0.95, [0.31065, 0.327, 0.66, 0.8]),
        (0.0, [0.0, -0.3, -0.1, 0.8]),
    ],
)
def test_advantages_and_returns(lam, expected):
    advantages, returns = gae(REWARDS, VALUES, ALL, gamma=1.0, lam=lam)
    assert advantages[0].tolist() == pytest.approx(expected, abs=1e-9)
    assert torch.equal(returns, advantages + VALUES)


def test_the_discount_is_per_token():
    advantages, _ = gae(REWARDS, VALUES, ALL, gamma=0.5, lam=1.0)
    discounted = 0.1 - 0.2 * 0.5 + 1.0 * 0.5**3
    assert float(advantages[0, 0]) == pytest.approx(discounted - 0.5)


def test_padding_changes_nothing():
    def pad(x, value):
        return torch.nn.functional.pad(x, (0, 3), value=value)

    mask = pad(ALL, 0)
    padded, returns = gae(pad(REWARDS, 9.0), pad(VALUES, 9.0), mask, gamma=1.0, lam=0.95)
    plain, plain_returns = gae(REWARDS, VALUES, ALL, gamma=1.0, lam=0.95)
    assert torch.equal(padded[:, :4], plain)
    assert torch.equal(returns[:, :4], plain_returns)
    assert not padded[:, 4:].any()
    assert torch.allclose(whiten(padded, mask)[:, :4], whiten(plain, ALL), atol=1e-15)


def test_whitening_keeps_the_mean_where_asked():
    values = torch.arange(12, 21, dtype=torch.float64)[None] / 10
    mask = torch.ones_like(values)
    kept = whiten(values, mask, keep_mean=True)
    assert kept[0].tolist() == pytest.approx(
        [0.05081, 0.43811, 0.82540, 1.21270, 1.6, 1.98730, 2.37460, 2.76189, 3.14919], abs=1e-5
    )
    assert torch.allclose(kept - 1.6, whiten(values, mask))


def test_whitening_halves_with_the_sums_of_both_is_whitening_the_whole():
    values = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(5) < torch.tensor([[5], [2], [3], [1]])).double()
    whole = whiten(values, mask)
    mean = (values * mask).sum() / mask.sum()
    sums = [
        torch.stack([mask.sum(), (values * mask).sum()]),
        (((values - mean) * mask) ** 2).sum(),
    ]
    calls = iter(sums)
    half = whiten(values[:2], mask[:2], reduce=lambda _: next(calls))
    assert torch.allclose(half, whole[:2])


def test_whitening_nothing_and_one_token_is_finite():
    assert not whiten(torch.ones(2, 3), torch.zeros(2, 3)).any()
    one = torch.tensor([[1.0, 0, 0]])
    assert not whiten(5 * one, one).any()


def test_the_score_is_on_the_last_token_and_penalties_on_all():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    penalties = torch.tensor([[0.1, 0.2, 9.0], [0.0, 0.0, 0.5], [9.0, 9.0, 9.0]])
    rewards = token_rewards(torch.tensor([1.0, 2.0, 3.0]), penalties, mask)
    assert torch.allclose(
        rewards, torch.tensor([[-0.1, 0.8, 0.0], [0.0, 0.0, 1.5], [0.0, 0.0, 0.0]])
    )


def test_the_coefficient_follows_the_divergence_at_most_a_fifth_per_horizon():
    changed = [
        adapted(0.15, kl, target=6, horizon=10_000, answers=64) for kl in (9, 600, 6, 5.4, 0)
    ]
    assert changed == pytest.approx([0.150192, 0.150192, 0.15, 0.149904, 0.149808])


def test_in_a_loss_each_estimate_has_a_gradient_of_its_own():
    """Table 1.5 of the design: none, that of KL(policy || ref), and that of KL(ref || policy)."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, dtype=torch.float64, generator=generator, requires_grad=True)
    reference = torch.randn(6, dtype=torch.float64, generator=generator).log_softmax(-1)

    def gradient(value):
        return torch.autograd.grad(value, logits)[0]

    def in_loss(estimator):
        logps = logits.log_softmax(-1)
        return gradient((logps.exp().detach() * kl_estimate(logps, reference, estimator)).sum())

    logps = logits.log_softmax(-1)
    reverse = gradient((logps.exp() * (logps - reference)).sum())
    forward = gradient((reference.exp() * (reference - logits.log_softmax(-1))).sum())
    assert torch.allclose(in_loss("k1"), torch.zeros_like(logits))
    assert torch.allclose(in_loss("k2"), reverse)
    assert torch.allclose(in_loss("k3"), forward)


def test_k2_is_half_the_square():
    assert float(kl_estimate(torch.tensor(1.0), torch.tensor(-1.0), "k2")) == 2.0


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_estimates_are_unbiased(estimator):
    policy, reference = torch.randn(
        2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    ).log_softmax(-1)
    expected = (policy.exp() * (policy - reference)).sum()
    terms = kl_estimate(policy, reference, estimator)
    assert float((policy.exp() * terms).sum()) == pytest.approx(float(expected))
    assert estimator == "k1" or bool((terms >= 0).all())
