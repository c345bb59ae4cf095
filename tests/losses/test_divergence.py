"""Estimates of a divergence against the sum over the whole vocabulary."""

import pytest
import torch

from aligntune.losses import divergence as module
from aligntune.losses.advantages import kl_estimate
from aligntune.losses.divergence import estimate, exact
from aligntune.losses.mirror import mirror

KINDS = ["prob_l2", "kl", "l2", "neural"]


def divergence(kind):
    return module.neural(mirror(42)) if kind == "neural" else module.divergence(kind)


def distance(logps, reference, kind):
    return divergence(kind).distance(logps, reference)


def policies():
    logits = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return logits[0].requires_grad_(), logits[1].log_softmax(-1)


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits, retain_graph=True)[0]


def expectation(logps, terms):
    """Over tokens drawn from the policy, without a gradient through the drawing."""
    return (logps.detach().exp() * terms).sum()


def test_the_sum_over_the_vocabulary_is_the_divergence():
    logits, reference = policies()
    logps = logits.log_softmax(-1)
    kl = (logps.exp() * (logps - reference)).sum()
    assert float(distance(logps, reference, "kl").sum()) == pytest.approx(
        float(kl.detach()), rel=1e-12
    )
    squared = ((logps.exp() - reference.exp()) ** 2).sum()
    assert float(distance(logps, reference, "prob_l2").sum()) == float(squared)


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_is_has_the_right_value(kind):
    logits, reference = policies()
    logps = logits.log_softmax(-1)
    terms = estimate(logps, reference, divergence(kind), "sampled_is")
    exact = distance(logps, reference, kind).sum()
    assert float(expectation(logps, terms)) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_score_has_the_right_gradient(kind):
    logits, reference = policies()
    logps = logits.log_softmax(-1)
    exact = gradient(distance(logps, reference, kind).sum(), logits)
    terms = estimate(logps, reference, divergence(kind), "score")
    assert torch.allclose(gradient(expectation(logps, terms), logits), exact, atol=1e-14)


def test_sampled_is_too_small_a_gradient_for_prob_l2():
    logits, reference = policies()
    logps = logits.log_softmax(-1)
    exact = gradient(distance(logps, reference, "prob_l2").sum(), logits)
    terms = estimate(logps, reference, divergence("prob_l2"), "sampled")
    assert gradient(expectation(logps, terms), logits).norm() < 0.6 * exact.norm()


def test_kl_with_importance_weights_is_k3():
    logits, reference = policies()
    logps = logits.log_softmax(-1)
    ours = estimate(logps, reference, divergence("kl"), "sampled_is")
    theirs = torch.exp(reference - logps) - (reference - logps) - 1
    assert torch.allclose(ours, theirs, atol=1e-15)
    assert torch.equal(ours, kl_estimate(logps, reference, "k3"))
    assert torch.allclose(gradient(ours.sum(), logits), gradient(theirs.sum(), logits), atol=1e-14)


def test_l2_is_twice_k2():
    logits, reference = policies()
    logps = logits.log_softmax(-1)
    k2 = (reference - logps) ** 2 / 2
    assert torch.allclose(distance(logps, reference, "l2"), 2 * k2, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_0_at_the_reference_and_positive_elsewhere(kind):
    grid = torch.linspace(0.01, 1, 60, dtype=torch.float64).log()
    table = distance(grid[:, None], grid[None], kind)
    assert not table.diagonal().any()
    off = table[~torch.eye(60, dtype=torch.bool)]
    assert bool((off > 0).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", ["sampled", "sampled_is", "score"])
def test_the_gradient_is_0_at_the_reference(kind, estimator):
    logps = torch.tensor([-0.5, -3.0, -20.0], dtype=torch.float64, requires_grad=True)
    estimate(logps, logps.detach(), divergence(kind), estimator).sum().backward()
    assert not logps.grad.any()


def test_kl_is_asymmetric():
    p, q = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()
    assert float(distance(p, q, "kl").sum()) != pytest.approx(float(distance(q, p, "kl").sum()))


@pytest.mark.parametrize("kind", ["prob_l2", "kl", "neural"])
def test_exact_is_the_sum_and_its_gradient_however_it_is_split(kind, monkeypatch):
    generator = torch.Generator().manual_seed(5)
    logits, other = (
        torch.randn(2, 3, 11, dtype=torch.float64, generator=generator) for _ in range(2)
    )
    logits.requires_grad_()
    logps, reference = logits.log_softmax(-1), other.log_softmax(-1)
    whole = distance(logps, reference, kind).sum(-1)
    for chunk in (2**24, 22):
        monkeypatch.setattr(module, "CHUNK", chunk)
        found = exact(logits, other, divergence(kind))
        assert found.shape == (2, 3)
        assert torch.allclose(found, whole, atol=1e-15)
        ours, theirs = (gradient((x**2).sum(), logits) for x in (found, whole))
        assert torch.allclose(ours, theirs, atol=1e-15)


@pytest.mark.parametrize("kind", ["prob_l2", "kl", "neural"])
def test_score_has_the_gradient_of_exact(kind):
    logits, reference = policies()
    logps = logits.log_softmax(-1)
    sampled = gradient(
        expectation(logps, estimate(logps, reference, divergence(kind), "score")), logits
    )
    assert torch.allclose(
        sampled, gradient(exact(logits, reference, divergence(kind)).sum(), logits), atol=1e-14
    )


def test_exact_computes_in_float32_what_comes_in_less():
    half = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.bfloat16)
    assert exact(half, half + 1, divergence("kl")).dtype == torch.float32
