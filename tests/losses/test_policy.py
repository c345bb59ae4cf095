"""What the policy's losses must be and have, whatever computes them (algorithms.md 1, 5-8, 14)."""

import math
from itertools import product

import pytest
import torch
from surrogate import clipped_surrogate, entropy, leave_one_out_advantages
from torch.nn.functional import pad

from aligntune.losses.advantages import kl_estimate
from aligntune.losses.aggregate import Share, aggregate
from aligntune.losses.policy import group_advantages, importance_ratio, informative

PLAIN = {"low": 0.2, "high": 0.2}
METHODS = {
    "grpo": ("token", "grpo", "group", PLAIN),
    "dr-grpo": ("token", "dr_grpo", "none", PLAIN),
    "dapo": ("token", "dapo", "group", {"low": 0.2, "high": 0.28}),
    "gspo": ("sequence", "grpo", "group", {"low": 3e-4, "high": 4e-4}),
}
"""Name -> ratio, aggregation, what advantages are scaled by, clip range."""
LENGTHS = (5, 3, 1, 2, 4, 5, 2, 1)
LIMIT = 6
NAN = float("nan")


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def batch():
    """Two groups of four answers: log-probabilities, what they were, mask, rewards (2, 4)."""
    generator = torch.Generator().manual_seed(0)
    logps = -torch.rand(8, 5, dtype=torch.float64, generator=generator) * 3 - 0.1
    old = logps + 0.3 * torch.randn(8, 5, dtype=torch.float64, generator=generator)
    mask = (torch.arange(5) < torch.tensor(LENGTHS)[:, None]).double()
    rewards = torch.rand(2, 4, dtype=torch.float64, generator=generator)
    return logps, old, mask, rewards


def loss_of(method, logps, old, mask, advantages, share=None):
    level, loss_type, _, clip = METHODS[method]
    ratio = importance_ratio(logps, old, mask, level)
    per_token = clipped_surrogate(ratio, advantages.view(-1, 1), **clip).expand_as(logps)
    return aggregate(per_token, mask, loss_type, share or Share(1, float(mask.sum()), LIMIT))


def graded(method, logps, old, mask, rewards, advantages=None):
    """(loss, its gradient by the log-probabilities)."""
    if advantages is None:
        advantages = group_advantages(rewards, METHODS[method][2])
    leaf = logps.clone().requires_grad_()
    loss = loss_of(method, leaf, old, mask, advantages)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(1.5, 1, -1.2), (1.5, -1, 1.5), (0.5, 1, -0.5), (0.5, -1, 0.8), (1.0, 2, -2.0)],
)
def test_the_clipped_surrogate(ratio, advantage, expected):
    found = clipped_surrogate(double([[ratio]]), double([[advantage]]), **PLAIN)
    assert float(found) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("high", "cap"), [(0.2, 0.012), (0.28, 0.0128)])
def test_clip_higher_lets_a_rare_token_become_likelier(high, cap):
    """One of probability 0.01 gains up to the cap, and nothing beyond it."""
    for probability, gains in ((cap - 1e-5, True), (cap + 1e-5, False)):
        logps = double([[math.log(probability)]]).requires_grad_()
        ratio = importance_ratio(logps, double([[math.log(0.01)]]), torch.ones(1, 1), "token")
        clipped_surrogate(ratio, double([[1.0]]), low=0.2, high=high).sum().backward()
        assert bool(logps.grad.lt(0).all()) == gains


@pytest.mark.parametrize(
    ("rewards", "scale", "expected"),
    [
        ([1, 0, 0, 0], "group", [1.49970, *[-0.49990] * 3]),
        ([1, 1, 0, 0], "group", [0.86588, 0.86588, -0.86588, -0.86588]),
        ([1, 0, 0, 0], "none", [0.75, *[-0.25] * 3]),
    ],
)
def test_group_advantages_as_published(rewards, scale, expected):
    found = group_advantages(double([rewards]), scale)
    assert found[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_success_counts_by_the_odds_of_failing():
    """sqrt((1 - p) / p) and -sqrt(p / (1 - p)), up to n - 1 and TRL's 1e-4."""
    found = group_advantages(double([[1, 1, 0, 0, 0, 0, 0, 0]]), "group")[0] * math.sqrt(8 / 7)
    assert found[0] == pytest.approx(math.sqrt(3), rel=1e-3)
    assert found[-1] == pytest.approx(-math.sqrt(1 / 3), rel=1e-3)


def test_advantages_over_the_spread_of_the_batch():
    rewards = double([[1, 0], [5, 3]])
    expected = double([[0.5, -0.5], [1, -1]]) / (rewards.std() + 1e-4)
    assert torch.allclose(group_advantages(rewards, "batch"), expected)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_shift_of_every_reward_changes_nothing(batch, scale):
    *_, rewards = batch
    shifted = group_advantages(rewards + 7, scale)
    assert torch.allclose(group_advantages(rewards, scale), shifted, atol=1e-9)


def test_a_larger_scale_of_rewards_hardly_does(batch):
    *_, rewards = batch
    once, more = (group_advantages(rewards * by, "group") for by in (1, 50))
    assert torch.allclose(once, more, atol=2e-3)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize(("reward", "size"), [(0.0, 8), (1.0, 8), (0.9, 3), (0.3, 7), (0.1, 6)])
def test_equal_rewards_have_no_advantage_at_all(reward, size, scale):
    """Seven rewards of 0.3 average to 0.3 + 3e-8."""
    rewards = torch.full((2, size), reward)
    rewards[1] += torch.arange(size)
    first, second = group_advantages(rewards, scale)
    assert first.eq(0).all()
    assert second.abs().max() > 0.1


def test_what_nothing_could_judge_neither_counts_nor_is_counted():
    found = group_advantages(double([[1, NAN, 0], [NAN, NAN, 1], [NAN, NAN, NAN]]), "none")
    assert found.tolist() == [[0.5, 0, -0.5], [0, 0, 0], [0, 0, 0]]


def test_a_group_is_informative_if_two_of_its_answers_differ():
    merits = double([[1, 1], [0, 1], [NAN, 1], [NAN, NAN], [0.5, 0.5 + 1e-9]])
    assert informative(merits).tolist() == [False, True, False, False, False]
    assert informative(double([[NAN, 0, 1]])).tolist() == [True]


def test_answers_may_come_in_any_order(batch):
    logps, old, mask, rewards = batch
    order = torch.tensor([2, 0, 3, 1, 7, 5, 4, 6])
    moved = rewards.flatten()[order].view(2, 4)
    for scale in ("group", "batch", "none"):
        expected = group_advantages(rewards, scale).flatten()[order].view(2, 4)
        assert torch.allclose(group_advantages(moved, scale), expected, atol=1e-12)
    for method in METHODS:
        loss, gradient = graded(method, logps, old, mask, rewards)
        other, its = graded(method, logps[order], old[order], mask[order], moved)
        assert torch.allclose(loss, other, atol=1e-12)
        assert torch.allclose(gradient[order], its, atol=1e-12)


def test_leave_one_out_is_dr_grpo_times_a_constant(batch):
    logps, _, mask, rewards = batch
    found = leave_one_out_advantages(double([[1, 0, 0, 0]]))
    assert found[0].tolist() == pytest.approx([1, *[-1 / 3] * 3])
    others = [[(row.sum() - r) / 3 for r in row] for row in rewards]
    rloo = leave_one_out_advantages(rewards)
    assert torch.allclose(rloo, rewards - double(others))
    assert torch.allclose(rloo, group_advantages(rewards, "none") * 4 / 3, atol=1e-14)
    one = graded("dr-grpo", logps, logps, mask, rewards, rloo)[1]
    other = graded("dr-grpo", logps, logps, mask, rewards)[1] * 4 / 3
    assert torch.allclose(one, other, atol=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_on_the_policy_that_sampled_the_gradient_is_that_of_reinforce(batch, method):
    logps, _, mask, rewards = batch
    advantages = group_advantages(rewards, METHODS[method][2]).view(-1, 1)
    loss, gradient = graded(method, logps, logps, mask, rewards)
    per_row = {"grpo": mask.sum(1, keepdim=True) * 8, "gspo": mask.sum(1, keepdim=True) * 8}
    weights = mask / per_row.get(method, mask.sum() if method == "dapo" else 8 * LIMIT)
    assert torch.allclose(gradient, -advantages * weights, atol=1e-15)
    assert torch.allclose(loss, -(advantages * weights).sum(), atol=1e-12)
    if method in ("grpo", "gspo"):  # group means of groups of one size
        assert float(loss) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("processes", [1, 2])
def test_neither_micro_batches_nor_processes_change_a_step(batch, method, processes):
    """Four micro-batches, over which DDP averages the processes' gradients."""
    logps, old, mask, rewards = batch
    advantages = group_advantages(rewards, METHODS[method][2]).flatten()
    loss, gradient = graded(method, logps, old, mask, rewards)
    micro = 4 // processes
    share = Share(micro, float(mask.sum()) / processes, LIMIT)
    leaf = logps.clone().requires_grad_()
    parts = zip(*(x.chunk(4) for x in (leaf, old, mask, advantages)), strict=True)
    split = sum(loss_of(method, *part, share=share) for part in parts) / processes
    assert float(split) == pytest.approx(float(loss), abs=1e-12)
    assert torch.allclose(torch.autograd.grad(split, leaf)[0], gradient, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_padding_never_reaches_a_loss(batch, method):
    logps, old, mask, rewards = batch
    loss, gradient = graded(method, logps, old, mask, rewards)
    wide = [pad(logps, (0, 5), value=-9.0), pad(old, (0, 5), value=-1.0), pad(mask, (0, 5))]
    other, its = graded(method, *wide, rewards)
    assert torch.allclose(loss, other, atol=1e-15)
    assert torch.allclose(its[:, :5], gradient, atol=1e-15)
    assert not its[:, 5:].any()
    poisoned = torch.where(mask.bool(), logps, -50.0)
    assert torch.allclose(graded(method, poisoned, old, mask, rewards)[0], loss, atol=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_equal_rewards_have_no_gradient(batch, method):
    logps, old, mask, _ = batch
    loss, gradient = graded(method, logps, old, mask, torch.full((2, 4), 0.3))
    assert not loss
    assert not gradient.any()


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_finite_differences(batch, method):
    logps, _, mask, rewards = batch
    advantages = group_advantages(rewards, METHODS[method][2])
    old = logps + (1e-4 if method == "gspo" else 0.05) * mask  # away from where it is clipped
    leaf = logps.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: loss_of(method, x, old, mask, advantages), leaf, rtol=1e-6
    )


def test_for_answers_of_one_token_gspo_is_grpo(batch):
    logps, old, _, rewards = batch
    advantages = group_advantages(rewards, "group").view(-1, 1)
    one = torch.ones(8, 1)
    token, sequence = (
        clipped_surrogate(importance_ratio(logps[:, :1], old[:, :1], one, level),
                          advantages, **PLAIN)
        for level in ("token", "sequence")
    )  # fmt: skip
    assert torch.equal(token, sequence)


def test_gspos_gradient_is_that_of_its_paper(batch):
    """s A / n for each token of an answer, off the policy that sampled, where nothing is
    clipped; the same as with a ratio per token whose value is s (GSPO-token)."""
    logps, old, mask, rewards = batch
    advantages = group_advantages(rewards, "group").view(-1, 1)
    leaf = logps.clone().requires_grad_()
    ratio = importance_ratio(leaf, old, mask, "sequence")
    wide = {"low": 0.99, "high": 99.0}
    share = Share(1, 1.0, LIMIT)
    loss = aggregate(
        clipped_surrogate(ratio, advantages, **wide).expand(-1, 5), mask, "grpo", share
    )
    expected = -ratio.detach() * advantages * mask / mask.sum(1, keepdim=True) / 8
    assert torch.allclose(torch.autograd.grad(loss, leaf)[0], expected, atol=1e-15)
    by_token = ratio.detach() * torch.exp(leaf - leaf.detach())
    same = aggregate(clipped_surrogate(by_token, advantages, **wide), mask, "grpo", share)
    assert torch.allclose(torch.autograd.grad(same, leaf)[0], expected, atol=1e-15)


def test_gspos_ratio_does_not_depend_on_length(batch):
    logps, old, *_ = batch
    once = importance_ratio(logps, old, torch.ones(8, 5), "sequence")
    twice = importance_ratio(logps.repeat(1, 2), old.repeat(1, 2), torch.ones(8, 10), "sequence")
    assert torch.allclose(once, twice)


def test_for_answers_of_one_length_dapo_without_clip_higher_is_grpo(batch):
    logps, old, _, rewards = batch
    mask, advantages = torch.ones(8, 5), group_advantages(rewards, "group").view(-1, 1)
    per_token = clipped_surrogate(importance_ratio(logps, old, mask, "token"), advantages, **PLAIN)
    share = Share(1, 40.0, LIMIT)
    by_type = [aggregate(per_token, mask, name, share) for name in ("grpo", "dapo")]
    assert float(by_type[0]) == pytest.approx(float(by_type[1]), abs=1e-15)


def test_dr_grpo_divides_by_the_limit_alone(batch):
    logps, old, mask, rewards = batch
    advantages = group_advantages(rewards, "none").view(-1, 1)
    per_token = clipped_surrogate(importance_ratio(logps, old, mask, "token"), advantages, **PLAIN)
    six, twelve = (aggregate(per_token, mask, "dr_grpo", Share(1, 1.0, n)) for n in (6, 12))
    assert float(six) == pytest.approx(2 * float(twelve))
    gradient = graded("dr-grpo", logps, logps, mask, rewards)[1]
    sizes = gradient.abs() / advantages.abs()
    assert torch.allclose(sizes[mask.bool()], double(1 / (8 * LIMIT)))


def test_entropy():
    assert float(entropy(torch.zeros(7))) == pytest.approx(math.log(7), rel=1e-6)
    assert float(entropy(double([0.0, -800.0]))) == 0


REWARD = double([1.0, 0.2, -0.5])
REFERENCE = double([0.2, 0.5, 0.3])
BETA = 0.7


def expected_gradient(policy, advantages_of, estimator=None, size=2):
    """The exact gradient of a step by the logits of a policy with one token and three choices:
    over all groups of `size` answers that it may give."""
    logits = policy.log().requires_grad_()
    logps = logits.log_softmax(-1)
    loss = torch.zeros((), dtype=torch.float64)
    for group in product(range(3), repeat=size):
        answers = torch.tensor(group)
        chance = policy[answers].prod()
        now = logps[answers].view(-1, 1)
        ratio = importance_ratio(now, now.detach(), torch.ones(size, 1), "token")
        per_token = clipped_surrogate(ratio, advantages_of(answers).view(-1, 1), **PLAIN)
        if estimator:
            reference = REFERENCE.log()[answers].view(-1, 1)
            per_token = per_token + BETA * kl_estimate(now, reference, estimator)
        loss = loss + chance * per_token.mean()
    return torch.autograd.grad(loss, logits)[0]


def tilted(rewards):
    """reference exp(rewards), normalised."""
    return torch.softmax(REFERENCE.log() + rewards, -1)


def test_leave_one_out_with_kl_in_the_reward_ends_where_theory_says():
    best = tilted(REWARD / BETA)

    def advantages(policy):
        penalised = REWARD - BETA * (policy / REFERENCE).log()
        return lambda answers: leave_one_out_advantages(penalised[answers][None])

    assert expected_gradient(best, advantages(best)).abs().max() < 1e-12
    other = tilted(REWARD)
    assert expected_gradient(other, advantages(other)).abs().max() > 1e-2


def test_a_group_mean_with_k2_in_the_loss_ends_at_a_smaller_reward():
    def advantages(answers):
        return group_advantages(REWARD[answers][None], "none")

    for size in (2, 3):
        end = tilted(REWARD * (size - 1) / size / BETA)
        assert expected_gradient(end, advantages, "k2", size).abs().max() < 1e-12
    assert expected_gradient(tilted(REWARD / BETA), advantages, "k2").abs().max() > 1e-2


def test_a_group_mean_with_k3_in_the_loss_ends_elsewhere():
    """At beta ref / (beta - c (R - mean R)), c = (G - 1) / G: k3's gradient is of another KL."""
    low, high = REWARD.min(), REWARD.max()
    for _ in range(200):
        mean = (low + high) / 2
        end = BETA * REFERENCE / (BETA - 0.5 * (REWARD - mean))
        low, high = (mean, high) if end.sum() > 1 else (low, mean)
    assert float(end.sum()) == pytest.approx(1)
    assert float((end * REWARD).sum()) == pytest.approx(float(mean))

    def advantages(answers):
        return group_advantages(REWARD[answers][None], "none")

    assert expected_gradient(end, advantages, "k3").abs().max() < 1e-10
    assert expected_gradient(end, advantages, "k2").abs().max() > 1e-3
