from itertools import pairwise, permutations

import pytest
import torch

from aligntune.losses.baseline import (
    Belief,
    curriculum,
    kept,
    leave_one_out,
    updated,
    warm,
    whitened,
)
from aligntune.losses.policy import group_advantages

WARM = warm([1.0] * 3 + [0.0] * 5, mass=1 / (1 - 0.875), prior=0.5, low=0.0, high=1.0)
"""Three of eight successes, smoothed, worth eight rewards."""


def test_a_warm_start_has_the_papers_values():
    assert WARM.total == pytest.approx(3.111111, abs=1e-6)
    assert WARM.mass - WARM.total == pytest.approx(4.888889, abs=1e-6)
    assert WARM.value == pytest.approx(0.388889, abs=1e-6)


def test_a_warm_start_is_on_the_scale_of_the_rewards():
    belief = warm([-1.0, 3.0], mass=4.0, prior=0.5, low=-1.0, high=3.0)
    assert (belief.value, belief.mass) == (1.0, 4.0)


@pytest.mark.parametrize(
    ("keep", "mass", "value"), [(0.96, 8.68, 0.4592934), (0.875, 8, 0.4652778)]
)
def test_one_reward_is_a_step_of_a_moving_average(keep, mass, value):
    after = updated(WARM, [1.0], keep)
    assert (after.mass, after.value) == pytest.approx((mass, value), abs=1e-7)
    eta = 1 / (keep * WARM.mass + 1)
    assert after.value == pytest.approx(WARM.value + eta * (1 - WARM.value))


def test_a_visit_discounts_once_and_does_not_depend_on_order():
    for rewards in permutations([1.0, 1.0, 0.0, 1.0]):
        after = updated(Belief(1.0, 2.0), rewards, 0.875)
        assert (after.total, after.mass - after.total) == pytest.approx((3.875, 1.875))
        assert after.value == pytest.approx(0.673913, abs=1e-6)


def test_keeping_all_is_the_running_mean_and_keeping_nothing_the_last_one():
    belief = Belief(0.5, 1.0)
    for batch in ([1.0, 0.0], [1.0], [0.0, 0.0, 1.0]):
        belief = updated(belief, batch, 1.0)
    assert belief.value == pytest.approx((0.5 + 3) / 7)
    assert updated(belief, [1.0, 0.0, 0.0], 0.0).value == pytest.approx(1 / 3)


def test_a_constant_reward_on_any_scale_is_approached_geometrically():
    belief = Belief(7 * 8, 8.0)
    errors = []
    for _ in range(6):
        belief = updated(belief, [-3.0], 0.875)
        errors.append(belief.value + 3.0)
    ratios = [after / before for before, after in pairwise(errors)]
    assert ratios == pytest.approx([0.875] * 5)
    assert belief.mass == pytest.approx(8.0)


def test_history_halves_at_the_half_life_within_its_bounds():
    assert kept(0.06, half_life=0.06, least=0.1, most=0.96) == pytest.approx(0.5)
    assert kept(0.0, half_life=0.06, least=0.875, most=0.96) == 0.96
    assert kept(9.9, half_life=0.06, least=0.875, most=0.96) == 0.875


def test_without_history_the_baseline_is_the_mean_of_the_others():
    rewards = [1.0, 0.0, 4.0]
    assert leave_one_out(Belief(0.0, 0.0), rewards, 0.9) == pytest.approx([2.0, 2.5, 0.5])


def test_for_one_reward_the_baseline_is_the_value_before_the_visit():
    for reward in (0.0, 1.0):
        assert leave_one_out(WARM, [reward], 0.9) == pytest.approx([WARM.value])


def test_a_baseline_does_not_see_its_own_reward():
    first = leave_one_out(WARM, [0.0, 1.0, 1.0], 0.9)
    second = leave_one_out(WARM, [1.0, 1.0, 1.0], 0.9)
    assert first[0] == pytest.approx(second[0])
    assert first[1] < second[1]


def test_comparing_with_the_group_mean_gives_dr_grpo_and_rloo_differ_by_a_factor():
    rewards = [1.0, 0.0, 0.0, 1.0, 1.0]
    dr_grpo = group_advantages(torch.tensor([rewards]), "none")[0]
    mean = Belief(sum(rewards), len(rewards)).value
    assert dr_grpo.tolist() == pytest.approx([reward - mean for reward in rewards])
    loo = leave_one_out(Belief(0.0, 0.0), rewards, 1.0)
    rloo = [reward - base for reward, base in zip(rewards, loo, strict=True)]
    assert rloo == pytest.approx((dr_grpo * 5 / 4).tolist())


def test_whitening_centres_scales_and_clamps():
    plain = whitened(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert float(plain.mean()) == pytest.approx(0, abs=1e-6)
    assert float(plain.std()) == pytest.approx(1)
    outlier = torch.zeros(101)
    outlier[0] = 1000.0
    assert float(whitened(outlier)[0]) == 5.0


def test_whitening_leaves_no_spread_and_lone_rows_at_zero():
    assert whitened(torch.full((4,), 0.3)).tolist() == [0.0] * 4
    assert whitened(torch.tensor([2.0])).tolist() == [0.0]


def test_whitening_passes_over_rows_without_a_reward():
    nan = float("nan")
    assert whitened(torch.tensor([0.0, nan, 2.0])).tolist() == pytest.approx(
        [-(0.5**0.5), 0.0, 0.5**0.5]
    )


def test_the_curriculum_prefers_prompts_that_are_solved_half_the_time():
    weights = curriculum(torch.tensor([0.0, 0.5, 1.0, 1.2]), 0.05)
    assert weights.tolist() == pytest.approx([0.05, 0.55, 0.05, 0.05])
