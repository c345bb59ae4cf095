"""PPO's settings reach its mathematics: returns, advantages and loss against plain arithmetic."""

import math
import statistics

import pytest
import torch
from places import place
from rollouts import make, spec, varied
from surrogate import entropy

from aligntune.train.policy import TRAINERS

DEFAULTS = {
    "kl_coef": 0.5, "kl_estimator": "k1", "gamma": 1.0, "lam": 0.95, "whiten_rewards": False,
    "missing_eos_penalty": 0.0, "cliprange": 0.2, "cliprange_value": 0.2, "vf_coef": 0.1,
    "ent_coef": 0.0, "temperature": 1.0,
}  # fmt: skip
ROLLOUT = [
    {}, {"kl_coef": 0.0}, {"kl_coef": 2.0}, {"kl_estimator": "k2"}, {"kl_estimator": "k3"},
    {"gamma": 0.8}, {"lam": 0.3}, {"lam": 0.0}, {"whiten_rewards": True},
    {"missing_eos_penalty": 3.0}, {"temperature": 0.5},
]  # fmt: skip
LOSS = [
    {}, {"cliprange": 0.01}, {"cliprange_value": 0.01}, {"vf_coef": 1.0}, {"ent_coef": 0.3},
    {"temperature": 0.5}, {"num_ppo_epochs": 2},
]  # fmt: skip


def name(changes):
    return ",".join(f"{key}={value}" for key, value in changes.items()) or "plain"


def shaken(trainer, seed, by=0.05):
    """A policy that is not the reference, with a critic that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)


@pytest.fixture
def ppo(tiny_model, tmp_path, monkeypatch):
    """(trainer, what it is shaped from, what it made of one round of answers, rewards)."""
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: varied)

    def ppo(changes):
        settings = {"num_ppo_epochs": 1, "max_completion_length": 12} | DEFAULTS | changes
        trainer = make(TRAINERS["ppo"], tiny_model, spec("ppo", **settings), place(tmp_path))
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        shaken(trainer, 1)
        torch.manual_seed(5)
        sampled = trainer._sampled(list(trainer.train_dataset))
        ends = torch.tensor(trainer.eos_token_ids)
        cut = ~torch.isin(sampled.out["completion_ids"], ends).any(1)
        # Random answers hardly ever end, so some are made to: shorter, and with an end.
        for row in range(4):
            sampled.out["completion_ids"][row, 3 + row] = ends[0]
            sampled.out["completion_mask"][row, 4 + row :] = 0
        assert cut.any()
        before = {key: value.clone() for key, value in sampled.out.items()}
        out = trainer.shape_rollout(dict(sampled.out), sampled.rewards, sampled.inputs)
        return trainer, before, out, sampled.rewards

    return ppo


def scored(trainer, out):
    """(log-probabilities, values, entropies) of the answers from the plain logits and states."""
    ids = torch.cat([out["prompt_ids"], out["completion_ids"]], dim=1)
    mask = torch.cat([out["prompt_mask"], out["completion_mask"]], dim=1)
    width = out["completion_ids"].size(1)
    made = trainer.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    logits = made.logits[:, -width - 1 : -1] / trainer.settings.temperature
    logps = logits.log_softmax(-1).gather(-1, out["completion_ids"][..., None]).squeeze(-1)
    values = trainer.critic.head(made.hidden_states[-1][:, -width - 1 : -1]).squeeze(-1)
    return logps, values, entropy(logits)


def kl(estimator, log_ratio):
    """Of the reference to the policy."""
    return {
        "k1": -log_ratio, "k2": log_ratio**2 / 2, "k3": math.exp(log_ratio) - log_ratio - 1,
    }[estimator]  # fmt: skip


def whitened(rows, keep_mean=False):
    every = [value for row in rows for value in row]
    mean, spread = statistics.fmean(every), math.sqrt(statistics.pvariance(every) + 1e-8)
    return [[(value - mean) / spread + keep_mean * mean for value in row] for row in rows]


def by_hand(trainer, before, rewards):
    """(returns, advantages) of each answer's tokens, as lists."""
    train, earned = trainer.settings, []
    logps, values, _ = (x.tolist() for x in scored(trainer, before))
    lengths = before["completion_mask"].sum(1).tolist()
    for i, length in enumerate(lengths):
        reference = before.get("ref_per_token_logps")
        row = [
            -train.kl_coef * kl(train.kl_estimator, float(reference[i, t]) - logps[i][t])
            if train.kl_coef
            else 0.0
            for t in range(length)
        ]
        answer = before["completion_ids"][i, :length].tolist()
        ended = any(token in trainer.eos_token_ids for token in answer)
        row[-1] += float(rewards[i]) - (0 if ended else train.missing_eos_penalty)
        earned.append(row)
    if train.whiten_rewards:
        earned = whitened(earned, keep_mean=True)
    returns, advantages = [], []
    for i, row in enumerate(earned):
        running, found = 0.0, []
        for t in reversed(range(len(row))):
            after = values[i][t + 1] if t + 1 < len(row) else 0.0
            running = row[t] + train.gamma * after - values[i][t] + (
                train.gamma * train.lam * running
            )  # fmt: skip
            found.insert(0, running)
        advantages.append(found)
        returns.append([a + v for a, v in zip(found, values[i], strict=False)])
    return returns, whitened(advantages)


@pytest.mark.parametrize("changes", ROLLOUT, ids=name)
def test_returns_and_advantages(ppo, changes):
    trainer, before, out, rewards = ppo(changes)
    with torch.no_grad():
        returns, advantages = by_hand(trainer, before, rewards)
    for i, (row, advantage) in enumerate(zip(returns, advantages, strict=True)):
        assert out["returns"][i, : len(row)].tolist() == pytest.approx(row, abs=2e-4)
        assert out["advantages"][i, : len(row)].tolist() == pytest.approx(advantage, abs=5e-4)
    assert int(out["num_items_in_batch"]) == int(before["completion_mask"].sum())


@pytest.mark.parametrize("changes", LOSS, ids=name)
def test_the_loss(ppo, changes):
    trainer, _, out, _ = ppo(changes)
    shaken(trainer, 2, by=0.02)
    train, mask = trainer.settings, out["completion_mask"].bool()
    logps, values, entropies = scored(trainer, out)
    ratio = (logps - out["old_per_token_logps"]).exp()
    clipped = ratio.clamp(1 - train.cliprange, 1 + train.cliprange)
    policy = torch.max(-out["advantages"] * ratio, -out["advantages"] * clipped)[mask].mean()
    old, returns = out["old_values"], out["returns"]
    near = torch.min(torch.max(values, old - train.cliprange_value), old + train.cliprange_value)
    value = torch.max((values - returns) ** 2, (near - returns) ** 2)[mask].mean() / 2
    expected = policy + train.vf_coef * value - train.ent_coef * entropies[mask].mean()
    loss = trainer._compute_loss(trainer.model, out)
    assert float(loss) == pytest.approx(float(expected), rel=1e-3)
    theirs = torch.autograd.grad(loss, list(trainer.model.parameters()))
    ours = torch.autograd.grad(expected, list(trainer.model.parameters()))
    for one, other in zip(theirs, ours, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_each_setting_makes_a_difference(ppo):
    """So that the tests above compare no default with itself."""
    plain = ppo({})[2]
    for changes in ROLLOUT[1:]:
        other = ppo(changes)[2]
        same = plain["returns"].shape == other["returns"].shape and torch.allclose(
            plain["returns"], other["returns"], atol=1e-3
        )
        assert not same, changes


def test_with_the_reference_as_policy_there_is_no_penalty(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: varied)
    wanted = spec("ppo", kl_coef=5.0, gamma=1.0, lam=1.0)
    trainer = make(TRAINERS["ppo"], tiny_model, wanted, place(tmp_path))
    trainer.model.train()
    sampled = trainer._sampled(list(trainer.train_dataset))
    out = trainer.shape_rollout(dict(sampled.out), sampled.rewards, sampled.inputs)
    assert torch.allclose(out["returns"][:, 0], sampled.rewards, atol=1e-4)
