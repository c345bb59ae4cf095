"""What several rewards make together: values, and what must not change them."""

import math

import pytest
import torch

from aligntune.config.rewards import Reward
from aligntune.rewards.combine import Moments, combined, correlations

NAN = math.nan


def rewards(*settings):
    return [Reward(reward_type="length", **one) for one in settings]


def table(*rows):
    return torch.tensor(rows)


def sums(scores, *settings, **known):
    return combined(scores, rewards(*settings), **known).rewards.tolist()


def test_without_settings_it_is_the_weighted_sum_of_what_could_judge():
    scores = table([1.0, 2.0], [NAN, 2.0], [1.0, NAN], [NAN, NAN])
    found = sums(scores, {"weight": 3.0}, {"weight": -1.0})
    assert found[:3] == [1.0, -2.0, 3.0]
    assert math.isnan(found[3])


def test_what_is_only_reported_judges_no_answer():
    scores = table([NAN, 0.5], [2.0, NAN])
    found = sums(scores, {}, {"weight": 0.0})
    assert math.isnan(found[0])
    assert found[1] == 2.0
    assert sums(scores[:, 1:], {"weight": 0.0})[0] == 0.0


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"clip_low": -1, "clip_high": 1}, [-2.0, 0.5, 2.0]),
        ({"clip_low": 0}, [0.0, 0.5, 14.0]),
        ({"clip_high": 0}, [-10.0, 0.0, 0.0]),
    ],
)
def test_clipped_before_it_is_weighted(bounds, expected):
    scores = table([-5.0], [0.25], [7.0])
    assert sums(scores, {"scale": "clip", "weight": 2.0, **bounds}) == expected


def test_zscores_use_what_came_before():
    past = Moments.of(torch.tensor([[1.0], [3.0]])).merged(Moments.of(torch.tensor([[5.0]])))
    found = sums(table([3.0], [5.0], [NAN]), {"scale": "zscore", "weight": 10.0}, moments=past)
    assert found[:2] == pytest.approx([0, 10 * 2 / (2 + 1e-4)])
    assert math.isnan(found[2])


@pytest.mark.parametrize("cuts", [(5,), (1, 2, 5), (1, 2, 3, 4, 5)])
def test_moments_are_those_of_all_scores_however_they_came(cuts):
    scores = torch.tensor([[1e6 + 1, 1.0], [1e6 + 2, NAN], [1e6 + 4, 3.0], [1e6, 0.5], [NAN, 2.5]])
    known = Moments.of(scores[:0])
    for start, end in zip((0, *cuts), cuts, strict=False):
        known = known.merged(Moments.of(scores[start:end]))
    for column in range(2):
        judged = scores[:, column][~scores[:, column].isnan()].double()
        assert float(known.count[column]) == len(judged)
        assert float(known.mean[column]) == pytest.approx(float(judged.mean()))
        assert float(known.std[column]) == pytest.approx(float(judged.std()), rel=1e-9)


def test_one_score_has_no_spread_and_says_nothing():
    past = Moments.of(torch.tensor([[5.0]]))
    assert sums(table([5.0]), {"scale": "zscore"}, moments=past) == [0.0]


def test_within_groups_each_reward_counts_the_same():
    """Two rewards of very different size; the second is the same everywhere in the first group."""
    scores = table([0.0, 100.0], [1.0, 100.0], [0.0, 900.0], [1.0, 100.0])
    found = sums(scores, {"scale": "group"}, {"scale": "group"}, answers=2)
    step = 0.5 / (math.sqrt(0.5) + 1e-4)
    other = 400 / (math.sqrt(2) * 400 + 1e-4)
    assert found == pytest.approx([-step, step, -step + other, step - other], abs=1e-6)


def test_equal_scores_of_a_group_are_exactly_0():
    assert sums(table(*[[0.3]] * 7), {"scale": "group"}, answers=7) == [0.0] * 7


def test_what_could_not_be_judged_is_no_part_of_its_group():
    found = sums(table([0.0], [NAN], [1.0]), {"scale": "group"}, answers=3)
    assert found[0] == -found[2] == pytest.approx(-math.sqrt(0.5), abs=1e-3)
    assert math.isnan(found[1])


def test_without_a_group_and_a_past_scores_are_as_they_are():
    scores = table([0.5, 3.0], [1.0, 4.0])
    assert sums(scores, {"scale": "zscore"}, {"scale": "group"}) == [3.5, 5.0]


def test_a_gate_multiplies_and_never_makes_an_answer_better():
    scores = table([1.0, 2.0, 0.25], [1.0, 2.0, 1.0], [1.0, 2.0, 0.0], [-3.0, 1.0, 0.0])
    assert sums(scores, {}, {}, {"gate": True}) == [0.75, 3.0, 0.0, -2.0]


def test_gates_multiply_each_other_and_one_that_cannot_judge_leaves_the_answer_out():
    scores = table([4.0, 0.5, 0.5], [4.0, 1.0, NAN], [-4.0, NAN, 1.0], [NAN, 1.0, 1.0])
    found = combined(scores, rewards({}, {"gate": True}, {"gate": True}))
    assert found.rewards[0] == 1.0
    assert found.gates[0] == 0.25
    assert found.rewards[1:].isnan().all()


def test_group_scaling_of_all_rewards_is_trls_gdpo():
    """arXiv:2601.05242 as TRL has it (`normalize_then_sum`), before its scaling by the batch."""
    scores = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    grouped = scores.view(-1, 4, 3)
    normal = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    weights = [1.0, 0.5, 2.0]
    expected = (normal.view(-1, 3) * torch.tensor(weights)).sum(1)
    found = sums(scores, *({"scale": "group", "weight": w} for w in weights), answers=4)
    assert found == pytest.approx(expected.tolist(), abs=1e-6)


def test_correlations_are_over_what_both_could_judge():
    scores = table([1.0, 2.0, 5.0], [2.0, 4.0, 5.0], [3.0, 6.0, 5.0], [9.0, NAN, 5.0])
    assert correlations(scores) == {(0, 1): pytest.approx(1.0)}
    assert correlations(-scores * torch.tensor([1.0, -1.0, 1.0])) == {(0, 1): pytest.approx(-1.0)}
    assert correlations(scores[:2]) == {}
