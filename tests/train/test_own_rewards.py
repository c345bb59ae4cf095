"""A function of the user's own in training: for TRL or for samples, good or broken."""

import pytest
from places import place
from rollouts import ROWS, curve, make, run, spec
from tokens import write_split

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError
from aligntune.train.policy import TRAINERS, train_policy

MODULE = """
def levels(prompts, completions, level, trainer_state, log_metric, **_):
    log_metric("mine", 2.0)
    assert prompts[0][-1]["role"] == "user" and completions[0][0]["role"] == "assistant"
    return [float(n) + trainer_state.global_step for n in level]
def later(completions, trainer_state, **_):
    return [1.0 if trainer_state.global_step < 1 else 1 / 0 for _ in completions]
def short(completions, **_): return [1.0]
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "own_trl_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def with_reward(name, **settings):
    reward = Reward(reward_type=f"own_trl_rewards:{name}", **settings)
    return spec("grpo", rewards=(reward,), max_steps=2, max_completion_length=3)


def test_columns_and_state_reach_a_function_for_trl(tiny_model, tmp_path):
    made = place(tmp_path / "out")
    rows = [row | {"extra": '{"level": 3}'} for row in ROWS]
    run(TRAINERS["grpo"], tiny_model, with_reward("levels"), made, rows)
    assert curve(made) == [3.0, 4.0]
    assert curve(made, "train/mine") == [2.0, 2.0]


def test_a_failure_in_training_names_its_step(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match=r"step 2: reward 'own_trl_rewards:later' failed on"):
        run(TRAINERS["grpo"], tiny_model, with_reward("later"), place(tmp_path / "out"))


def test_failures_that_are_skipped_are_counted(tiny_model, tmp_path):
    made = place(tmp_path / "out")
    trainer = make(TRAINERS["grpo"], tiny_model, with_reward("later", on_error="skip"), made)
    trainer.state.global_step = 5
    trainer.model.train()
    rows = [row for row in list(trainer.train_dataset)[:1] for _ in range(16)]
    trainer._generate_and_score_completions(rows)
    logged = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    assert logged["rewards/later/failed"] == 16
    assert logged["rewards/later/unjudged"] == 1


def test_a_wrong_function_is_found_before_the_model_is_loaded(tiny_model, tmp_path):
    wanted = with_reward("short")
    data = write_split(tmp_path / "data", ROWS, "prompt", tiny_model)
    with pytest.raises(ConfigError, match=r"'own_trl_rewards:short', tried on 2 samples: it ret"):
        train_policy(wanted, tmp_path / "no-model", data, place(tmp_path / "out"))
