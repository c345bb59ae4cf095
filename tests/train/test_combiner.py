"""Scaled and gated rewards in training: what is learned from, logged and kept."""

import pytest
import torch
from places import at_look, place
from rollouts import ROWS, curve, make, run, spec, varied

from aligntune.config.rewards import Reward
from aligntune.errors import Interrupted
from aligntune.train.policy import TRAINERS


def odd(samples):
    return [float(len(sample.completion) % 2) for sample in samples]


def half(samples):
    return [0.25 + 0.5 * (i % 2) for i, _ in enumerate(samples)]


KNOWN = {"varied": varied, "odd": odd, "half": half}


@pytest.fixture(autouse=True)
def scorers(monkeypatch):
    monkeypatch.setattr(
        "aligntune.train.reward_functions.scorer", lambda reward: KNOWN[reward.reward_type]
    )


def reward(name, **settings):
    return Reward(reward_type=name, **settings)


def scores(trainer):
    """What TRL adds up, of one round: (the rewards' own scores, their sum as it was made)."""
    found = {}
    calculate = trainer._calculate_rewards

    def keep(*args):
        found["all"] = calculate(*args)
        return found["all"]

    trainer._calculate_rewards = keep
    rows = [row for row in list(trainer.train_dataset)[:4] for _ in range(4)]
    out = trainer._generate_and_score_completions(rows)
    return found["all"][:, :-1], found["all"][:, -1], out


def trainer_of(path, folder, *rewards, **changes):
    wanted = spec("grpo", rewards=rewards, num_generations=4, beta=0.0, **changes)
    trainer = make(TRAINERS["grpo"], path, wanted, place(folder))
    trainer.model.train()
    return trainer


def test_the_policy_learns_from_what_trl_calls_gdpo(tiny_model, tmp_path):
    both = (reward("varied", scale="group", weight=2.0), reward("odd", scale="group"))
    ours = trainer_of(tiny_model, tmp_path, *both, scale_rewards="batch")
    raw, _, out = scores(ours)
    normal = [
        (column - column.mean(1, keepdim=True)) / (column.std(1, keepdim=True) + 1e-4)
        for column in raw.T.reshape(2, -1, 4)
    ]
    total = (2 * normal[0] + normal[1]).flatten()
    expected = (total - total.mean()) / (total.std() + 1e-4)
    assert torch.allclose(out["advantages"], expected, atol=1e-5)
    assert ours._metrics["train"]["rewards/varied/mean"][0] == pytest.approx(
        float(raw[:, 0].mean())
    )


def test_a_gate_is_logged_and_the_rewards_own_scores_too(tiny_model, tmp_path):
    trainer = trainer_of(tiny_model, tmp_path, reward("varied"), reward("half", gate=True))
    raw, total, _ = scores(trainer)
    assert torch.allclose(total, raw[:, 0] * raw[:, 1])
    logged = {name: values[0] for name, values in trainer._metrics["train"].items()}
    assert logged["reward"] == pytest.approx(float(total.mean()))
    assert logged["rewards/half/mean"] == logged["rewards/gate"] == logged["rewards/gated"] == 0.5
    expected = float(torch.corrcoef(raw.T)[0, 1])
    assert logged["rewards/correlation/varied/half"] == pytest.approx(expected, abs=1e-6)


def test_running_scores_go_on_from_a_checkpoint(tiny_model, tmp_path):
    both = (reward("varied", scale="zscore"), reward("odd", scale="zscore", weight=0.5))
    wanted = spec("grpo", rewards=both, max_steps=5, steps_per_generation=2, num_iterations=2,
                  per_device_batch_size=8).model_copy(update={"eval_steps": 2})  # fmt: skip
    whole, halved = place(tmp_path / "whole"), tmp_path / "halved"
    run(TRAINERS["grpo"], tiny_model, wanted, whole, heldout=ROWS[:3])
    with pytest.raises(Interrupted):
        run(TRAINERS["grpo"], tiny_model, wanted, place(halved, at_look(2)), heldout=ROWS[:3])
    run(TRAINERS["grpo"], tiny_model, wanted, place(halved), heldout=ROWS[:3])
    for name in ("train/reward", "train/loss", "train/grad_norm", "eval/reward"):
        assert curve(place(halved), name) == curve(whole, name)
    assert abs(curve(whole)[0]) < 1e-5, "a first round has mean 0 by itself"
    # Held-out answers have no past: their reward is what `evaluate` would say.
    assert min(curve(whole, "eval/reward")) > 0.01


def test_an_answer_that_its_gate_cannot_judge_teaches_nothing(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(KNOWN, "half", lambda samples: [None, *[1.0] * (len(samples) - 1)])
    trainer = trainer_of(tiny_model, tmp_path, reward("varied"), reward("half", gate=True))
    raw, total, out = scores(trainer)
    assert raw[0].isnan().all()
    assert total.isnan().tolist() == [True, *[False] * 15]
    assert float(out["advantages"][0]) == 0
    assert float(out["advantages"][1:].abs().sum()) > 0
