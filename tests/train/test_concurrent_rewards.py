"""Slow rewards run at the same time, models on one device one after the other."""

import asyncio
import threading
import time
from inspect import iscoroutinefunction, unwrap

import pytest
import torch
from places import place
from rollouts import curve, run, spec

from aligntune.config.logging import SampleLogging
from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError
from aligntune.train.concurrent_rewards import WORKERS, at_once
from aligntune.train.policy import TRAINERS

MODULE = """
import time
def first(samples):
    time.sleep(0.5)
    return [len(s.completion) / 10 for s in samples]
def second(samples):
    time.sleep(0.5)
    return [float(len(set(s.completion))) for s in samples]
def broken(samples): return 1 / 0
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "slow_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def trained(path, folder, *names, **changes):
    both = tuple(Reward(reward_type=f"slow_rewards:{name}") for name in names)
    wanted = spec("grpo", rewards=both, max_steps=2, max_completion_length=4)
    made = place(folder)
    run(TRAINERS["grpo"], path, wanted.model_copy(update=changes), made)
    return made


def test_two_that_sleep_take_as_long_as_one_and_give_the_same(tiny_model, tmp_path, monkeypatch):
    samples = {"sample_logging": SampleLogging(num_samples=1, max_new_tokens=3, prompts=("hi",))}
    together = trained(tiny_model, tmp_path / "together", "first", "second", **samples)
    monkeypatch.setattr("aligntune.train.online.at_once", lambda judges, rewards: judges)
    alone = trained(tiny_model, tmp_path / "alone", "first", "second", **samples)
    for name in ("reward", "rewards/first/mean", "rewards/second/mean", "grad_norm"):
        assert curve(together, f"train/{name}") == curve(alone, f"train/{name}")
    for quick, slow in zip(
        curve(together, "train/time/reward"), curve(alone, "train/time/reward"), strict=True
    ):
        assert 0.5 < quick < slow - 0.25


def test_a_failure_in_one_is_heard(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="step 1: reward 'slow_rewards:broken' failed"):
        trained(tiny_model, tmp_path / "out", "first", "broken")


def test_models_wait_for_each_other_by_device_and_no_more_than_so_many_run():
    running, most, lock = {}, {}, threading.Lock()

    def judge(device):
        def score(**_):
            place = here if device == "auto" else device
            for key in (place, "all"):
                with lock:
                    running[key] = running.get(key, 0) + 1
                    most[key] = max(most.get(key, 0), running[key])
            time.sleep(0.05)
            for key in (place, "all"):
                with lock:
                    running[key] -= 1
            return [1.0]

        return score

    here = "cuda:0" if torch.cuda.is_available() else "cpu"
    devices = [here, "auto", here, "cuda:7", "cuda:7", *[None] * 12]
    rewards = [
        Reward(reward_type="model", model_name="x", device=device)
        if device
        else Reward(reward_type="code_execution")
        for device in devices
    ]

    async def main():
        functions = at_once([judge(device) for device in devices], rewards)
        return await asyncio.gather(*(function() for function in functions))

    assert asyncio.run(main()) == [[1.0]] * len(devices)
    assert most[here] == most["cuda:7"] == 1
    assert 2 <= most["all"] <= WORKERS


def test_what_only_computes_stays_where_it_is():
    def score(**_):
        return [1.0]

    rewards = [Reward(reward_type=name) for name in ("length", "math", "repetition")]
    assert at_once([score] * 3, rewards) == [score] * 3
    rewards.append(Reward(reward_type="code_execution"))
    functions = at_once([score] * 4, rewards)
    assert [iscoroutinefunction(function) for function in functions] == [False, True, False, True]
    assert {unwrap(function) for function in functions} == {score}
