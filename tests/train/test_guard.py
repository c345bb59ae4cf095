"""Runs that collapse say so, or stop, and name what to try."""

import logging
from types import SimpleNamespace

import pytest
from places import place
from rollouts import run, spec

from aligntune.config.train import Guard, Train
from aligntune.errors import ConfigError, Diverged
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.train.checkpoints import steps
from aligntune.train.guard import Still, Watch
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
    with pytest.raises(Diverged, match=r"step 4, .*No checkpoint is from before") as stopped:
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
    for action in ("warn", "stop", "off"):
        with pytest.raises(Diverged, match=r"ended in 3 steps.*raise train.max_completion_length"):
            watch(mask=True, action=action)(cut, cut, cut)
    watch(mask=False)(cut, cut, cut)


def test_a_run_shorter_than_patience_does_not_end_as_if_it_had_learned(
    tiny_model, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(
        "aligntune.train.reward_functions.scorer", lambda reward: lambda s: [1.0] * len(s)
    )
    short = {"max_steps": 2, "max_completion_length": 1}
    run(TRAINERS["grpo"], tiny_model, spec("grpo", **short), place(tmp_path / "alike"))
    assert "in all 2 steps all answers to a prompt are rewarded alike" in caplog.text
    masked = spec("grpo", mask_truncated_completions=True, **short)
    with pytest.raises(Diverged, match="no answer has ended in 2 steps"):
        run(TRAINERS["grpo"], tiny_model, masked, place(tmp_path / "masked"))


@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_the_last_checkpoint_from_before_a_collapse_is_kept(
    tiny_model, tmp_path, monkeypatch, algo
):
    calls = []

    def judge(samples):
        calls.append(1)
        good = len(calls) <= 3
        return [float(good and i % 2) for i, _ in enumerate(samples)]

    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: judge)
    made = place(tmp_path / "out")
    passes = {"num_ppo_epochs": 1} if algo == "ppo" else {}
    guard = Guard(patience=4, action="stop")
    wanted = spec(algo, guard=guard, max_steps=20, save_steps=1, **passes)
    with pytest.raises(Diverged, match=r"step 7, .* The checkpoint of step 3 is from before that"):
        run(TRAINERS[algo], tiny_model, wanted, made)
    assert steps(made.work / "checkpoints") == [3, 5, 6]


def test_a_run_stops_before_it_trains_on_nothing(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "aligntune.train.reward_functions.scorer", lambda reward: lambda s: [1.0] * len(s)
    )
    wanted = spec("grpo", guard=Guard(patience=2), max_steps=5)
    with pytest.raises(Diverged, match="in all 2 steps all answers to a prompt"):
        run(TRAINERS["grpo"], tiny_model, wanted, place(tmp_path / "out"))


def test_a_run_that_has_moved_or_goes_on_may_come_to_rest():
    state = SimpleNamespace(max_steps=100)
    for first, norms in ((1, [1e-8, 0.1, *[0.0] * 9]), (7, [0.0] * 9), (1, [None] * 9)):
        still = Still(patience=3)
        for state.global_step, norm in enumerate(norms, start=first):
            still.on_log(None, state, None, {} if norm is None else {"grad_norm": norm})
    still = Still(patience=3)
    for state.global_step in (1, 2):
        still.on_log(None, state, None, {"grad_norm": 4e-8})
    with pytest.raises(Diverged, match="in all 3 steps there was no gradient"):
        still.on_log(None, SimpleNamespace(global_step=3, max_steps=9), None, {"grad_norm": 4e-8})


def test_a_tokenizer_without_an_end_is_refused(tiny_model, tmp_path):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.eos_token = None
    policy = load_policy(tiny_model, trust_remote_code=False)
    with pytest.raises(ConfigError, match="no end-of-sequence token"):
        online_trainer(policy, tokenizer, None, None, spec("grpo"), place(tmp_path / "out"))
