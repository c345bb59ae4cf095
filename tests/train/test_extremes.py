"""The best and worst answers by each reward are kept, and the same after an interruption."""

import json

import pytest
from places import at_look, place
from rollouts import curve, run, spec

from aligntune.config.logging import SampleLogging
from aligntune.config.rewards import Reward
from aligntune.errors import Interrupted
from aligntune.train.extremes import _ends
from aligntune.train.policy import TRAINERS

KNOWN = {
    "long": lambda samples: [float(len(s.completion)) for s in samples],
    "varied": lambda samples: [
        None if i == 0 else float(len(set(s.completion))) for i, s in enumerate(samples)
    ],
}
for name, function in KNOWN.items():
    function.__name__ = name
BOTH = (Reward(reward_type="long", weight=-1.0), Reward(reward_type="varied"))


@pytest.fixture(autouse=True)
def scorers(monkeypatch):
    monkeypatch.setattr(
        "aligntune.train.reward_functions.scorer", lambda reward: KNOWN[reward.reward_type]
    )


def trained(path, made, **changes):
    shown = SampleLogging(num_samples=2, max_new_tokens=2, interval_steps=3, prompts=("hi",))
    wanted = spec("grpo", rewards=BOTH, max_steps=7, **changes)
    run(TRAINERS["grpo"], path, wanted.model_copy(update={"sample_logging": shown}), made)


def rows(made):
    return [json.loads(line) for line in (made.out / "extremes.jsonl").read_text().splitlines()]


def test_each_reward_shows_what_it_pays_for(tiny_model, tmp_path):
    made = place(tmp_path / "out")
    trained(tiny_model, made)
    found = rows(made)
    assert {row["step"] for row in found} == {1, 4, 7}
    first = [row for row in found if row["step"] == 1]
    by = {
        name: [row for row in first if row["by"] == name] for name in ("long", "varied", "reward")
    }
    assert all(
        [row["place"] for row in some] == ["best", "best", "worst", "worst"] for some in by.values()
    )
    for row in by["long"]:
        assert row["score"] == row["rewards"]["long"] == len(row["completion"])
    scores = [row["score"] for row in by["long"]]
    assert scores[0] >= scores[1] >= scores[3] >= scores[2]
    assert scores[0] > curve(made, "train/rewards/long/mean")[0] > scores[2]
    for row in by["reward"]:
        assert row["score"] == (row["rewards"]["varied"] or 0) - row["rewards"]["long"]
        assert row["prompt"].split()[0] in ("say", "tell")


def test_it_is_the_same_after_an_interruption_and_however_rounds_fall(tiny_model, tmp_path):
    changes = {"steps_per_generation": 2, "num_iterations": 1, "per_device_batch_size": 8}
    whole = place(tmp_path / "whole")
    trained(tiny_model, whole, **changes)
    assert sorted({row["step"] for row in rows(whole)}) == [1, 5, 7]
    with pytest.raises(Interrupted):
        trained(tiny_model, place(tmp_path / "halved", at_look(5)), **changes)
    trained(tiny_model, place(tmp_path / "halved"), **changes)
    assert rows(place(tmp_path / "halved")) == rows(whole)


def test_no_answer_is_best_and_worst_and_none_that_was_not_judged():
    nan = float("nan")
    assert list(_ends([1.0, nan, 3.0], 2)) == [("best", 2), ("best", 0)]
    assert list(_ends([1.0, nan, 3.0, 2.0], 1)) == [("best", 2), ("worst", 0)]
    assert list(_ends([nan], 1)) == []
