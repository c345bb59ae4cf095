"""The neural mirror map of arXiv:2602.04380: a convex function with 380 parameters, random ones or
learned ones.

    f'(y) = sum_j v_j act_j(w_j y + b_j) + a y + c ln y        for a probability y in (0, 1]

126 units in six blocks of 21, one activation each. Every parameter is at least 0, so f' rises and
f is convex. What is needed of f is its Bregman coordinate d(p, q) = f(p) - f(q) - f'(q) (p - q),
which is computed here without ever subtracting two values of f: each unit is

    v w (p - q)^2 k(w q + b, w (p - q))

with a k of its own that stays finite where p is close to q.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCKS, UNITS = 6, 21
SIZE = 3 * BLOCKS * UNITS + 2
"""Parameters of a map."""
LEAST = 1e-8
"""Of a parameter that is not drawn: a unit with neither weight nor bias has no slope at 0."""
SCALE = 0.01
"""Parameters are drawn from U(0, SCALE)."""
EPSILON = 1e-3
"""Keeps the logarithm's argument away from 0."""
SERIES = 1e-3
"""Below this the quotients of `_log` and `_exp` lose digits, and their series has them."""


@dataclass(frozen=True)
class Mirror:
    v: Tensor
    """(BLOCKS, UNITS), as `w` and `b`; float64."""
    w: Tensor
    b: Tensor
    a: float
    c: float


def mirror(seed: int) -> Mirror:
    """The map that `seed` draws: v, w, b, a, c in this order, on the CPU in float32."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return (torch.rand(*size, generator=generator) * SCALE).double()

    v, w, b = (draw(BLOCKS * UNITS).view(BLOCKS, UNITS) for _ in range(3))
    return Mirror(v, w, b, float(draw(1)), float(draw(1)))


def flat(f: Mirror) -> Tensor:
    """All parameters: v, w, b, a, c. (SIZE,)"""
    ends = torch.tensor([f.a, f.c], dtype=torch.float64)
    return torch.cat([f.v.flatten(), f.w.flatten(), f.b.flatten(), ends])


def unflat(parameters: Tensor) -> Mirror:
    """The map with these parameters; those below `LEAST` are raised to it, so it is convex.
    (SIZE,)"""
    values = parameters.double().clamp(min=LEAST)
    v, w, b = (part.view(BLOCKS, UNITS) for part in values[:-2].chunk(3))
    return Mirror(v, w, b, float(values[-2]), float(values[-1]))


def distance(f: Mirror, logps: Tensor, reference: Tensor) -> Tensor:
    """d(p, q) >= 0 for each pair of log-probabilities, 0 where they are equal. float64."""
    log_p, log_q = logps.double(), reference.double()
    p, q = log_p.exp(), log_q.exp()
    change = p - q
    v, w, b = _on(f, p)
    quadratic = torch.full_like(p, f.a / 2)
    for unit, (_, kernel) in enumerate(_ACTIVATIONS):
        at = w[unit] * q[..., None] + b[unit]
        step = w[unit] * change[..., None]
        quadratic = quadratic + (kernel(at, step) * v[unit] * w[unit]).sum(-1)
    ratio = log_q - log_p
    return change**2 * quadratic + f.c * p * (torch.expm1(ratio) - ratio)


def slope(f: Mirror, logps: Tensor) -> Tensor:
    """f'(p) of each log-probability. float64."""
    log_p = logps.double()
    p = log_p.exp()
    v, w, b = _on(f, p)
    total = f.a * p + f.c * log_p
    for unit, (activation, _) in enumerate(_ACTIVATIONS):
        total = total + (activation(w[unit] * p[..., None] + b[unit]) * v[unit]).sum(-1)
    return total


def _on(f: Mirror, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return f.v.to(like.device), f.w.to(like.device), f.b.to(like.device)


def _cube(at: Tensor, step: Tensor) -> Tensor:
    u = at + step
    return (u**2 + 2 * u * at + 3 * at**2) / 4


def _square(at: Tensor, step: Tensor) -> Tensor:
    return (3 * at + step) / 3


def _square_root(at: Tensor, step: Tensor) -> Tensor:
    s, s0 = (at + step).sqrt(), at.sqrt()
    return (2 * s + s0) / (3 * (s + s0) ** 2)


def _cube_root(at: Tensor, step: Tensor) -> Tensor:
    k, k0 = (at + step) ** (1 / 3), at ** (1 / 3)
    return 0.75 * (k**2 + 2 / 3 * k * k0 + k0**2 / 3) / (k**2 + k * k0 + k0**2) ** 2


def _log(at: Tensor, step: Tensor) -> Tensor:
    scale = at + EPSILON
    z = step / scale
    near = z.abs() < SERIES
    far = torch.where(near, torch.ones_like(z), z)  # a division by 0 would spoil the gradient
    exact = ((1 + far) * torch.log1p(far) - far) / far**2
    return torch.where(near, 1 / 2 - z / 6 + z**2 / 12, exact) / scale


def _exp(at: Tensor, step: Tensor) -> Tensor:
    near = step.abs() < SERIES
    far = torch.where(near, torch.ones_like(step), step)
    exact = (torch.expm1(far) - far) / far**2
    return at.exp() * torch.where(near, 1 / 2 + step / 6 + step**2 / 24, exact)


Kernel = Callable[[Tensor, Tensor], Tensor]
_ACTIVATIONS: tuple[tuple[Callable[[Tensor], Tensor], Kernel], ...] = (
    (lambda u: u**3, _cube),
    (lambda u: u**2, _square),
    (torch.sqrt, _square_root),
    (lambda u: u ** (1 / 3), _cube_root),
    (lambda u: torch.log(u + EPSILON), _log),
    (torch.exp, _exp),
)
"""(activation, kernel) of each block, in the paper's order."""
