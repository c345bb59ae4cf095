"""Evolution strategies: a vector is improved by what its fitness is at random points around it.

As arXiv:2602.04380 learns its mirror map, except that

    points come in pairs, center + shift and center - shift, which are used or dropped as a whole,
    so that a constant added to every fitness changes nothing;
    a shift that is used again keeps its length when the others' has decayed;
    `patience` ends it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Fitness = Callable[[Tensor], float | None]
"""(D,) -> how good it is, larger is better; None where that could not be found out."""


@dataclass(frozen=True)
class Search:
    rounds: int = 15
    members: int = 10
    """Points looked at in a round, an even number; reused ones are among them."""
    sigma: float = 0.01
    """Deviation of a shift in the first round, per parameter."""
    decay: float = 0.99
    """By which that shrinks from round to round."""
    rate: float = 0.01
    """Length of a step along the gradient."""
    patience: int = 5
    """Rounds without an improvement of `min_gain` after which it ends."""
    min_gain: float = 1e-3
    seed: int = 0

    def deviation(self, number: int) -> float:
        """Of the shifts of round `number`, from 0."""
        return float(self.sigma * self.decay**number)


@dataclass(frozen=True)
class Pair:
    shift: Tensor
    """(D,)"""
    up: float
    """Fitness at center + shift."""
    down: float
    """Fitness at center - shift."""


@dataclass(frozen=True)
class State:
    center: Tensor
    """(D,) float64."""
    number: int = 0
    """Rounds done."""
    best: float = -torch.inf
    """Highest mean fitness of a round."""
    stale: int = 0
    """Rounds since it rose by `min_gain`."""
    elites: tuple[Pair, ...] = ()
    """Pairs of the rounds since the center last moved that are used again."""
    accepted: bool = False
    """Whether the center moved in the last round."""
    pairs: tuple[Pair, ...] = field(default=(), repr=False)
    """Those of the last round."""


def evolve(state: State, fitness: Fitness, search: Search) -> Iterator[State]:
    """The state after each further round: the same ones wherever a search is taken up again."""
    while state.number < search.rounds and state.stale < search.patience:
        fresh = []
        for shift in shifts(state, search):
            up, down = fitness(state.center + shift), fitness(state.center - shift)
            if up is not None and down is not None:
                fresh.append(Pair(shift, up, down))
        state = moved(state, (*state.elites, *fresh), search)
        yield state


def shifts(state: State, search: Search) -> list[Tensor]:
    """The new ones of the next round, which depend on its number alone. (D,) each"""
    generator = torch.Generator().manual_seed(search.seed + state.number)
    count = max(search.members // 2 - len(state.elites), 0)
    drawn = torch.randn(count, len(state.center), generator=generator, dtype=torch.float64)
    return list(drawn * search.deviation(state.number))


def gradient(pairs: Sequence[Pair], sigma: float) -> Tensor:
    """Of the fitness, smoothed over shifts of deviation `sigma`; what a linear fitness has in the
    directions of the shifts. (D,)"""
    slopes = [(pair.up - pair.down) / 2 * pair.shift for pair in pairs]
    return torch.stack(slopes).mean(0) / sigma**2


def moved(state: State, pairs: Sequence[Pair], search: Search) -> State:
    """`state` after a round in which `pairs` were found: a step up where their mean fitness is the
    best so far, else the best quarter of them is kept for the next round."""
    after = replace(state, number=state.number + 1, pairs=tuple(pairs), accepted=False)
    if not pairs:
        return replace(after, stale=state.stale + 1)
    mean = sum(pair.up + pair.down for pair in pairs) / (2 * len(pairs))
    stale = 0 if mean > state.best + search.min_gain else state.stale + 1
    if mean <= state.best:
        ranked = sorted(pairs, key=lambda pair: max(pair.up, pair.down), reverse=True)
        keep = max(search.members // 8, 1)
        return replace(after, stale=stale, elites=tuple(ranked[:keep]))
    step = search.rate * gradient(pairs, search.deviation(state.number))
    center = state.center + step
    return replace(after, center=center, best=mean, stale=stale, elites=(), accepted=True)
