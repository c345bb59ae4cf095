"""The tests behind gates: worked values, and error rates by simulation."""

import numpy as np
import pytest

from aligntune.errors import DataError
from aligntune.evaluate.margin import holm, shift

HOW = {"confidence": 0.95, "resamples": 400, "seed": 7}


def binary(ones, count):
    return np.array([1.0] * ones + [0.0] * (count - ones))


def test_rates_are_tested_by_mcnemar_on_one_side():
    candidate = np.array([1.0] * 10 + [0.0] * 2 + [1.0] * 8)
    baseline = np.array([0.0] * 10 + [1.0] * 2 + [1.0] * 8)
    found = shift(candidate, baseline, margin=0, **HOW)
    assert found.p_above == pytest.approx(79 / 4096), "at most 2 of 12 coin flips"
    assert found.p_below == pytest.approx(1 - (1 + 12) / 4096, abs=0.005)
    # Bonett and Price at one-sided 95 %: (11 - 3) / 22 - 1.645 sqrt((14 / 22 - (8 / 22)^2) / 22).
    assert found.low == pytest.approx(0.11462, abs=1e-4)
    assert (found.wins, found.losses, found.ties) == (10, 2, 8)


def test_where_lower_is_better_a_fall_is_an_improvement():
    generator = np.random.default_rng(5)
    baseline = generator.normal(size=50)
    lower = baseline - generator.uniform(0.1, 0.2, size=50)
    found = shift(lower, baseline, margin=0, **HOW, higher_is_better=False)
    assert 0.1 < found.low < found.improvement < found.high < 0.2
    assert (found.wins, found.losses) == (50, 0)
    assert found.p_above < 0.01 < 0.9 < found.p_below


def test_equal_models_are_within_a_margin_and_not_above_zero():
    same = np.random.default_rng(0).normal(size=40)
    assert shift(same, same, margin=0, **HOW).p_above == 1
    within = shift(same, same, margin=-0.1, **HOW)
    assert within.p_above < 0.01
    assert (within.low, within.high) == (0, 0)
    rates = binary(20, 40)
    assert shift(rates, rates, margin=0, **HOW).p_above == 1
    assert shift(rates, rates, margin=-0.2, **HOW).p_above < 0.01
    assert shift(rates, rates, margin=-0.01, **HOW).p_above > 0.05, "40 prompts cannot show that"


def test_a_handful_of_prompts_cannot_pass():
    baseline = np.arange(4.0)
    assert 1 / 16 <= shift(baseline + 0.5, baseline, margin=0, **HOW).p_above < 0.1
    assert shift(np.array([2.0]), np.array([1.0]), margin=0, **HOW).p_above >= 0.5


DRAWS = {
    "normal": lambda g, n: g.normal(size=n),
    "skewed to good": lambda g, n: g.exponential(size=n) - 1,
    "skewed to bad": lambda g, n: 1 - g.exponential(size=n),
    "mostly alike": lambda g, n: np.where(g.random(n) < 0.2, g.normal(size=n), 0.0),
}
SIMULATED = 500


@pytest.mark.parametrize("kind", [*DRAWS, "binary"])
@pytest.mark.parametrize("margin", [0.0, -0.3])
def test_a_candidate_that_is_no_better_than_the_margin_rarely_passes(kind, margin):
    """At most as often as stated: 5 %, and twice the simulation's own standard error."""
    generator, passed = np.random.default_rng(2), 0
    for _ in range(SIMULATED):
        if kind == "binary":
            draw = generator.random(60)
            one, other = (draw < 0.2 + margin / 2), (draw > 0.8 + margin / 2)
            change = one.astype(float), other.astype(float)
        else:
            change = DRAWS[kind](generator, 60) + margin, np.zeros(60)
        found = shift(*change, margin=margin, **HOW | {"resamples": 200})
        passed += found.p_above <= 0.05 and found.low > margin
    assert passed / SIMULATED <= 0.05 + 2 * (0.05 * 0.95 / SIMULATED) ** 0.5


def test_a_candidate_that_is_better_by_what_is_detectable_passes_four_times_in_five():
    generator = np.random.default_rng(3)
    effect = shift(generator.normal(size=100), np.zeros(100), margin=0, **HOW).detectable
    passed = [
        shift(generator.normal(effect, 1, 100), np.zeros(100), margin=0, **HOW).p_above <= 0.05
        for _ in range(200)
    ]
    assert 0.7 <= np.mean(passed) <= 0.9


def test_holm_adjusts_by_how_many_are_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


def test_scores_that_are_no_pairs_are_refused():
    with pytest.raises(DataError, match="3 candidate scores cannot be paired with 2"):
        shift(np.zeros(3), np.zeros(2), margin=0, **HOW)
