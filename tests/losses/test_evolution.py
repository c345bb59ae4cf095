"""Evolution strategies: what is learned from fitness alone."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from aligntune.losses.evolution import Pair, Search, State, evolve, gradient, moved, shifts
from aligntune.losses.mirror import SIZE, flat, mirror

TARGET = flat(mirror(7))
START = State(flat(mirror(42)))
SEARCH = Search(rounds=20, members=40, sigma=1e-3, decay=1.0, rate=0.03, min_gain=0.0)


def near(parameters):
    return -float(((parameters - TARGET) ** 2).sum())


def fitnesses(state):
    return [score for pair in state.pairs for score in (pair.up, pair.down)]


def mean(state):
    return sum(fitnesses(state)) / len(fitnesses(state))


def test_a_map_that_is_close_to_the_best_is_found():
    assert SIZE == 380
    states = list(evolve(START, near, SEARCH))
    assert len(states) == SEARCH.rounds
    assert all(state.accepted for state in states)
    assert all(later > before for before, later in pairwise(map(mean, states)))
    assert near(states[-1].center) > 0.5 * near(START.center)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_a_linear_fitness_has_its_own_gradient_in_every_direction_looked_at(offset):
    generator = torch.Generator().manual_seed(1)
    slope, center = torch.randn(2, 30, generator=generator, dtype=torch.float64)

    def linear(x):
        return float(slope @ x) + offset

    for directions in (torch.eye(30, dtype=torch.float64), torch.linalg.qr(
        torch.randn(30, 30, generator=generator, dtype=torch.float64))[0]):  # fmt: skip
        # As long as a drawn shift is on average.
        pairs = [
            Pair(shift, linear(center + shift), linear(center - shift))
            for shift in directions * 30**0.5 * 0.01
        ]
        assert torch.allclose(gradient(pairs, 0.01), slope, rtol=1e-7, atol=1e-7)
        (one, *_), (first, *_) = pairs, directions
        assert torch.allclose(gradient([one], 0.01), 30 * (slope @ first) * first, atol=1e-6)


@pytest.mark.parametrize("at", [1, 4, 7])
def test_a_search_that_goes_on_elsewhere_takes_the_same_rounds(at):
    """Through rounds that move and rounds that do not."""
    search = replace(SEARCH, members=8, patience=20)
    whole = list(evolve(START, near, search))
    assert {state.accepted for state in whole} == {True, False}
    rest = list(evolve(whole[at - 1], near, search))
    assert len(rest) == search.rounds - at
    for state, again in zip(whole[at:], rest, strict=True):
        assert torch.equal(state.center, again.center)
        assert fitnesses(state) == fitnesses(again)


def test_what_fails_takes_its_opposite_with_it():
    asked = []

    def failing(parameters):
        asked.append(parameters)
        return None if len(asked) == 1 else near(parameters)

    (state,) = evolve(START, failing, replace(SEARCH, rounds=1, members=6))
    assert len(state.pairs) == 2
    assert torch.equal(state.pairs[0].shift, shifts(START, replace(SEARCH, members=6))[1])
    (lost,) = evolve(START, lambda _: None, replace(SEARCH, rounds=1))
    assert torch.equal(lost.center, START.center)
    assert (lost.stale, lost.accepted) == (1, False)


def test_without_a_gain_the_best_are_looked_at_again_at_their_own_distance():
    search = replace(SEARCH, members=16, decay=0.5)
    found = [Pair(shift, float(n), -1.0) for n, shift in enumerate(shifts(START, search))]
    high = replace(START, best=100.0)
    state = moved(high, found, search)
    assert torch.equal(state.center, START.center)
    assert [pair.up for pair in state.elites] == [7.0, 6.0]
    fresh = shifts(state, search)
    assert len(fresh) == 6
    ratio = float(torch.stack(fresh).std() / state.elites[0].shift.std())
    assert ratio == pytest.approx(0.5, rel=0.1)
    assert len(shifts(moved(START, found, search), search)) == 8


def test_it_ends_when_patience_does():
    search = replace(SEARCH, rounds=50, members=4, patience=3)
    states = list(evolve(START, lambda _: 1.0, search))
    assert len(states) == 4
    assert [state.accepted for state in states] == [True, False, False, False]
    assert torch.equal(states[-1].center, START.center)
    gains = iter(range(10**6))
    slow = replace(search, min_gain=1e9)
    assert len(list(evolve(START, lambda _: float(next(gains)), slow))) == 4
