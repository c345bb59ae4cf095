"""Intervals and comparisons: values worked by hand, and coverage by simulation."""

import tracemalloc
from itertools import product

import numpy as np
import pytest

from aligntune.errors import DataError
from aligntune.evaluate.resample import _flipped
from aligntune.evaluate.stats import mean_interval, paired_difference

HOW = {"confidence": 0.95, "resamples": 1000, "seed": 7}


def binary(ones, count):
    return np.array([1.0] * ones + [0.0] * (count - ones))


@pytest.mark.parametrize(
    ("ones", "count", "low", "high"),
    [
        (80, 200, 0.334606, 0.469163),
        # At a rate of 1 Wilson's lower end is n / (n + z^2).
        (10, 10, 10 / (10 + 1.959964**2), 1.0),
        (0, 10, 0.0, 1.959964**2 / (10 + 1.959964**2)),
    ],
)
def test_a_rate_gets_wilsons_interval(ones, count, low, high):
    interval = mean_interval(binary(ones, count), **HOW)
    assert interval.mean == ones / count
    assert interval.count == count
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-5)


def test_a_mean_gets_about_two_standard_errors_to_each_side():
    scores = np.random.default_rng(0).normal(3, 2, size=400)
    interval = mean_interval(scores, **HOW)
    assert interval.standard_error == pytest.approx(0.1, rel=0.1)
    assert interval.high - interval.mean == pytest.approx(1.96 * interval.standard_error, rel=0.1)
    assert interval.mean - interval.low == pytest.approx(1.96 * interval.standard_error, rel=0.1)


def test_a_higher_confidence_makes_a_wider_interval():
    scores = np.random.default_rng(0).exponential(size=50)
    narrow = mean_interval(scores, confidence=0.8, resamples=1000, seed=0)
    wide = mean_interval(scores, confidence=0.99, resamples=1000, seed=0)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_the_seed_alone_decides_the_resampling():
    scores = np.random.default_rng(0).exponential(size=50)
    assert mean_interval(scores, **HOW) == mean_interval(scores, **HOW)
    assert mean_interval(scores, **HOW) != mean_interval(scores, **HOW | {"seed": 8})


def test_one_score_is_its_own_interval():
    interval = mean_interval(np.array([2.5]), **HOW)
    assert (interval.low, interval.mean, interval.high, interval.count) == (2.5, 2.5, 2.5, 1)
    assert interval.standard_error == 0


def test_intervals_hold_the_true_mean_as_often_as_they_say():
    generator = np.random.default_rng(1)
    how = HOW | {"resamples": 300}
    held = [
        interval.low <= 1 <= interval.high
        for interval in (mean_interval(generator.exponential(size=80), **how) for _ in range(300))
    ]
    assert 0.90 <= np.mean(held) <= 0.98


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_equal_models_are_rarely_told_apart(kind):
    generator = np.random.default_rng(2)
    told = 0
    for _ in range(300):
        one, other = generator.normal(size=(2, 60)) + generator.normal(size=60)
        if kind == "binary":
            one, other = (one > 0).astype(float), (other > 0).astype(float)
        told += paired_difference(one, other, **HOW | {"resamples": 300}).verdict != "inconclusive"
    assert told / 300 <= 0.08


DRAWS = {
    "normal": lambda g, n: g.normal(size=n),
    "skewed": lambda g, n: g.exponential(size=n) - 1,
    "mostly alike": lambda g, n: np.where(g.random(n) < 0.2, g.normal(size=n), 0.0),
}


@pytest.mark.parametrize(
    ("kind", "prompts"), [("normal", 10), ("skewed", 10), ("normal", 20), ("mostly alike", 50)]
)
def test_a_few_prompts_tell_equal_models_apart_as_rarely_as_they_say(kind, prompts):
    """At most 5 %, and twice the simulation's own standard error; by percentiles up to 16 %."""
    generator, told, how = np.random.default_rng(2), 0, HOW | {"resamples": 300}
    for _ in range(500):
        change = DRAWS[kind](generator, prompts)
        told += paired_difference(change, np.zeros(prompts), **how).verdict != "inconclusive"
    assert told / 500 <= 0.05 + 2 * (0.05 * 0.95 / 500) ** 0.5


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_intervals_of_a_few_prompts_hold_the_true_mean_as_often_as_they_say(kind):
    generator, held, how = np.random.default_rng(2), 0, HOW | {"resamples": 300}
    for _ in range(500):
        found = mean_interval(DRAWS[kind](generator, 10), **how)
        held += found.low <= 0 <= found.high
    assert 0.93 <= held / 500 <= 0.98


def test_the_signs_of_a_few_differences_are_flipped_in_all_ways():
    change = np.array([1.0, 2.0, 3.0, 4.0, -1.0, 0.0])
    sums = [sum(signs) for signs in product(*((one, -one) for one in change[:5]))]
    assert _flipped(change, 100, 0) == (
        sum(one >= 9 for one in sums) / 32, sum(one <= 9 for one in sums) / 32
    )  # fmt: skip


def test_differences_of_rates_are_held_as_often_as_they_say():
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        draw = generator.random(60)  # 20 % won, 5 % lost, the rest equal
        one, other = (draw < 0.2).astype(float), ((draw >= 0.2) & (draw < 0.25)).astype(float)
        found = paired_difference(one, other, **HOW)
        held += found.low <= 0.15 <= found.high
    assert 0.92 <= held / 400 <= 0.99


def test_rates_are_compared_by_mcnemars_exact_test():
    candidate = np.array([1.0] * 10 + [0.0] * 2 + [1.0] * 8)
    baseline = np.array([0.0] * 10 + [1.0] * 2 + [1.0] * 8)
    found = paired_difference(candidate, baseline, **HOW)
    assert (found.wins, found.losses, found.ties) == (10, 2, 8)
    assert found.difference == pytest.approx(0.4)
    # Of 12 coin flips at most 2 are heads, twice: 2 (1 + 12 + 66) / 2^12.
    assert found.p_value == pytest.approx(2 * 79 / 4096)
    # Bonett and Price: (11 - 3) / 22 -+ 1.96 sqrt((11 + 3) / 22 - (8 / 22)^2) / sqrt(22).
    assert (found.low, found.high) == pytest.approx((0.066942, 0.660331), abs=1e-5)
    assert found.verdict == "better"


def test_mcnemar_stays_exact_with_thousands_of_pairs():
    candidate, baseline = binary(5000, 10_000), 1 - binary(5000, 10_000)
    assert paired_difference(candidate, baseline, **HOW).p_value == 1
    candidate = binary(5500, 10_000)
    assert 0 < paired_difference(candidate, 1 - candidate, **HOW).p_value < 1e-20


def test_models_that_never_differ_are_not_proven_equal():
    found = paired_difference(binary(3, 20), binary(3, 20), **HOW)
    assert (found.difference, found.p_value, found.ties) == (0, 1, 20)
    assert found.low < 0 < found.high
    assert found.verdict == "inconclusive"


@pytest.mark.parametrize(("prompts", "verdict"), [(5, "inconclusive"), (6, "better")])
def test_a_handful_of_prompts_that_agree_cannot_reach_five_percent(prompts, verdict):
    # The sign test's smallest p-value is 2 / 2^n, which falls below 0.05 at n = 6.
    baseline = np.arange(float(prompts))
    found = paired_difference(baseline + 0.5, baseline, **HOW)
    assert found.p_value == pytest.approx(2 / 2**prompts)
    assert found.verdict == verdict


def test_pairing_removes_what_the_prompts_have_in_common():
    generator = np.random.default_rng(4)
    difficulty = generator.normal(0, 10, size=100)
    baseline, noise = difficulty, generator.normal(0, 0.5, size=100)
    assert paired_difference(difficulty + 0.4 + noise, baseline, **HOW).verdict == "better"
    assert paired_difference(difficulty - 0.4 + noise, baseline, **HOW).verdict == "worse"


def test_where_lower_is_better_a_fall_is_a_win():
    generator = np.random.default_rng(5)
    baseline = generator.normal(size=50)
    lower = baseline - generator.uniform(0.1, 0.2, size=50)
    found = paired_difference(lower, baseline, **HOW, higher_is_better=False)
    assert found.difference < 0
    assert found.high < 0
    assert (found.wins, found.losses, found.verdict) == (50, 0, "better")


def test_swapping_the_models_mirrors_the_comparison():
    one, other = binary(30, 50), np.roll(binary(20, 50), 15)
    here, there = paired_difference(one, other, **HOW), paired_difference(other, one, **HOW)
    assert (here.low, here.high) == pytest.approx((-there.high, -there.low))
    assert (here.wins, here.losses, here.p_value) == (there.losses, there.wins, there.p_value)


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_the_detectable_difference_is_found_four_times_in_five(kind):
    generator = np.random.default_rng(6)
    spread = HOW | {"resamples": 300}

    def compare(effect):
        if kind == "binary":
            draw = generator.random(200)  # 20 % of the prompts differ
            one, other = (draw < 0.1 + effect / 2), (draw >= 0.1 + effect / 2) & (draw < 0.2)
            return paired_difference(one.astype(float), other.astype(float), **spread)
        return paired_difference(generator.normal(effect, 1, 200), np.zeros(200), **spread)

    effect = np.mean([compare(0).detectable for _ in range(20)])
    found = [compare(effect).verdict == "better" for _ in range(200)]
    assert 0.7 <= np.mean(found) <= 0.9


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_an_error(bad):
    scores = np.array([1.0, bad, 0.0])
    with pytest.raises(DataError, match="score 1 is"):
        mean_interval(scores, **HOW)
    with pytest.raises(DataError, match="score 1 is"):
        paired_difference(np.zeros(3), scores, **HOW)


def test_scores_that_cannot_be_summarised_are_an_error():
    with pytest.raises(DataError, match="no mean"):
        mean_interval(np.array([]), **HOW)
    with pytest.raises(DataError, match="no mean"):
        mean_interval(np.zeros((2, 2)), **HOW)
    with pytest.raises(DataError, match="3 candidate scores cannot be paired with 2"):
        paired_difference(np.zeros(3), np.zeros(2), **HOW)


def test_memory_does_not_grow_with_the_number_of_resamples():
    scores = np.random.default_rng(0).normal(size=10_000)
    tracemalloc.start()
    mean_interval(scores, confidence=0.95, resamples=1000, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6
