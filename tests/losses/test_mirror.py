"""The neural mirror map: golden values, convexity, and agreement with its own definition."""

import pytest
import torch

from aligntune.losses.divergence import divergence
from aligntune.losses.mirror import EPSILON, SIZE, Mirror, distance, flat, mirror, slope, unflat


def d(f, p, q):
    p, q = (torch.tensor(x, dtype=torch.float64).log() for x in (p, q))
    return float(distance(f, p, q))


def potential(f, y):
    """f itself, from the primitives of its activations. (N,) -> (N,)"""
    primitives = (
        lambda u, w: u**4 / (4 * w),
        lambda u, w: u**3 / (3 * w),
        lambda u, w: 2 / 3 * u**1.5 / w,
        lambda u, w: 3 / 4 * u ** (4 / 3) / w,
        lambda u, w: ((u + EPSILON) * (u + EPSILON).log() - (u + EPSILON)) / w,
        lambda u, w: u.exp() / w,
    )
    total = f.a / 2 * y**2 + f.c * (y * y.log() - y)
    for v, w, b, primitive in zip(f.v, f.w, f.b, primitives, strict=True):
        total = total + (v * primitive(w * y[:, None] + b, w)).sum(-1)
    return total


def test_the_parameters_of_seed_42():
    f = mirror(42)
    assert f.v.numel() + f.w.numel() + f.b.numel() + 2 == 380
    assert f.a == pytest.approx(0.0091418466, rel=1e-7)
    assert f.c == pytest.approx(0.00040946959, rel=1e-6)
    assert float(f.v[0, 0]) == pytest.approx(0.0088226926, rel=1e-7)
    assert float(f.v.sum()) == pytest.approx(0.5992487669, rel=1e-7)


@pytest.mark.parametrize(
    ("p", "q", "golden"),
    [
        (0.5, 0.4, 4.285244e-4),
        (0.9, 0.2, 2.146891e-2),
        (0.1, 0.6, 1.085673e-2),
        (0.01, 0.5, 1.140255e-2),
    ],
)
def test_distances_of_seed_42(p, q, golden):
    assert d(mirror(42), p, q) == pytest.approx(golden, rel=1e-6)
    assert d(mirror(42), p, p) == 0


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_no_distance_is_negative(seed):
    logps = torch.cat([torch.linspace(1e-6, 1, 80).double().log(), torch.tensor([-60.0])])
    table = distance(mirror(seed), logps[:, None].double(), logps[None].double())
    assert bool((table >= 0).all())
    assert not table.diagonal().any()


def test_the_slope_is_the_derivative_of_the_potential():
    f = mirror(42)
    y = torch.linspace(0.01, 1, 50, dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(potential(f, y).sum(), y)
    assert torch.allclose(slope(f, y.detach().log()), derivative, rtol=1e-12)


def test_the_distance_is_what_the_potential_says_where_that_has_digits():
    f = mirror(7)
    p, q = (x.double() for x in (torch.linspace(0.05, 0.95, 10), torch.linspace(0.9, 0.1, 10)))
    plain = potential(f, p) - potential(f, q) - slope(f, q.log()) * (p - q)
    assert torch.allclose(distance(f, p.log(), q.log()), plain, rtol=1e-9)


def test_no_digits_are_lost_where_the_probabilities_are_close():
    """Of 1e-6 apart the subtraction of potentials leaves nothing; d is still f''/2 times the
    square."""
    f = mirror(42)
    q = torch.tensor(0.4, dtype=torch.float64)
    near = d(f, 0.4 + 1e-6, 0.4)
    steps = torch.stack([q + 1e-4, q - 1e-4]).log()
    rise = slope(f, steps)
    assert near == pytest.approx(float(rise[0] - rise[1]) / 2e-4 / 2 * 1e-12, rel=1e-4)


def test_parts_of_the_map_alone():
    zero = torch.zeros(6, 21, dtype=torch.float64)
    assert d(Mirror(zero, zero + 0.5, zero + 0.5, 1.0, 0.0), 0.7, 0.3) == pytest.approx(0.08)
    entropic = d(Mirror(zero, zero + 0.5, zero + 0.5, 0.0, 1.0), 0.7, 0.3)
    log_p, log_q = (torch.tensor(x, dtype=torch.float64).log() for x in (0.7, 0.3))
    assert entropic == pytest.approx(float(divergence("kl").distance(log_p, log_q)), rel=1e-12)


def test_gradients_are_finite_and_right_at_and_near_the_reference():
    f = mirror(42)
    reference = torch.tensor([-0.5, -3.0, -30.0], dtype=torch.float64)
    for shift in (0.0, 1e-9, 0.3):
        logps = (reference - shift).requires_grad_()
        distance(f, logps, reference).sum().backward()
        by_slopes = (slope(f, logps.detach()) - slope(f, reference)) * logps.detach().exp()
        assert torch.allclose(logps.grad, by_slopes, atol=1e-15, rtol=1e-9)


def test_parameters_in_a_row_make_the_same_map():
    f = mirror(42)
    again = unflat(flat(f))
    assert all(torch.equal(getattr(f, name), getattr(again, name)) for name in "vwb")
    assert (again.a, again.c) == (f.a, f.c)
    assert flat(f).shape == (SIZE,) == (380,)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_parameters_below_0_still_make_a_convex_map(seed):
    """As a search proposes them: half of all are negative, of some units weight and bias."""
    drawn = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)) * 0.02
    logps = torch.linspace(1e-6, 1, 60).double().log()
    for parameters in (drawn, -torch.ones(SIZE)):
        table = distance(unflat(parameters), logps[:, None], logps[None])
        assert bool(torch.isfinite(table).all())
        assert bool((table >= 0).all())
        at = logps.clone().requires_grad_()
        distance(unflat(parameters), at, logps.flip(0)).sum().backward()
        assert bool(torch.isfinite(at.grad).all())
