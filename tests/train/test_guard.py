"""Runs that collapse say so, or stop, and name what to try."""

import logging
from types import SimpleNamespace

import pytest
from rollouts import place, run, spec

from aligntune.config.train import Guard, Train
from aligntune.errors import ConfigError, Diverged
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.train.guard import Watch
from aligntune.train.online import online_trainer
from aligntune.train.policy import TRAINERS

FINE = {
    "reward": 0.5, "reward_std": 0.2, "frac_reward_zero_std": 0.5, "kl": 0.1, "entropy": 1.0,
    "completions/mean_length": 20.0, "completions/clipped_ratio": 0.1,
}  # fmt: skip
ALIKE = {"reward_std": 0.3, "frac_reward_zero_std": 1.0}


def watch(algo="grpo", first=1, mask=None, **guard):
    watch = Watch(algo, Train(guard=Guard(patience=3, **guard), mask_truncated_completions=mask))

    def steps(*changes):
        for number, change in enumerate(changes, start=first):
            watch.on_log(None, SimpleNamespace(global_step=number), None, FINE | change)

    return steps


@pytest.mark.parametrize(
    ("change", "words", "remedy"),
    [
        ({"kl": 7.0}, "7 nats per token away from the reference", "learning_rate"),
        ({"entropy": 0.0}, "entropy is 0 nats", "temperature"),
        ({"completions/mean_length": 1.0}, "answers have 1 tokens", "`length` reward"),
        (ALIKE, "all answers to a prompt are rewarded alike", "look at the rewards"),
    ],
)
def test_a_sign_that_lasts_is_said_once_and_stops_where_asked(caplog, change, words, remedy):
    with caplog.at_level(logging.WARNING):
        watch()({}, change, change, {}, change, change)
        assert not caplog.records
        watch()({}, change, change, change, change)
    (record,) = caplog.records
    assert record.getMessage().startswith("step 4, for 3 steps: ")
    assert words in record.getMessage()
    with pytest.raises(Diverged, match=r"step 4, .*Earlier checkpoints are kept") as stopped:
        watch(action="stop")({}, change, change, change)
    assert words in str(stopped.value)
    assert remedy in str(stopped.value)
    watch(action="off")({}, change, change, change)


def test_nothing_to_learn_from_the_first_step_on_stops_unless_it_is_off():
    with pytest.raises(Diverged, match="in all 3 steps all answers to a prompt are rewarded alike"):
        watch()(ALIKE, ALIKE, ALIKE)
    watch()({}, ALIKE, ALIKE, ALIKE)
    watch(first=7)(ALIKE, ALIKE, ALIKE)  # one that goes on
    watch(action="off")(ALIKE, ALIKE, ALIKE)


def test_without_groups_it_is_the_spread_of_all_rewards_that_counts():
    for algo in ("ppo", "bolt"):
        watch(algo)(ALIKE, ALIKE, ALIKE)
        with pytest.raises(Diverged, match="all answers are rewarded alike"):
            watch(algo)(*[{"reward_std": 0.0}] * 3)


def test_no_answer_ends_and_those_are_left_out():
    cut = {"completions/clipped_ratio": 1.0}
    with pytest.raises(Diverged, match=r"no answer has ended in 3 steps.*max_completion_length"):
        watch(mask=True)(cut, cut, cut)
    watch(mask=False)(cut, cut, cut)


def test_a_run_stops_before_it_trains_on_nothing(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("aligntune.train.judge.scorer", lambda reward: lambda s: [1.0] * len(s))
    wanted = spec("grpo", guard=Guard(patience=2), max_steps=5)
    with pytest.raises(Diverged, match="in all 2 steps all answers to a prompt"):
        run(TRAINERS["grpo"], tiny_model, wanted, place(tmp_path / "out"))


def test_a_tokenizer_without_an_end_is_refused(tiny_model, tmp_path):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.eos_token = None
    policy = load_policy(tiny_model, trust_remote_code=False)
    with pytest.raises(ConfigError, match="no end-of-sequence token"):
        online_trainer(policy, tokenizer, None, None, spec("grpo"), place(tmp_path / "out"))
