"""A reward that fails is named with its prompt and completion, or is dealt with as asked."""

import time

import pytest
from own_process import printed

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError
from aligntune.rewards import check_gate, scorer
from aligntune.rewards.moment import Moment, at
from aligntune.rewards.types import Sample

MODULE = """
import asyncio, os, sys, time
def _each(samples, what):
    return [what(s) if s.completion == "bad" else 0.5 for s in samples]
def raises(samples): return _each(samples, lambda s: 1 / 0)
def nan(samples): return _each(samples, lambda s: float("nan"))
def infinite(samples): return _each(samples, lambda s: float("inf"))
def huge(samples): return _each(samples, lambda s: -1e38)
def text(samples): return _each(samples, lambda s: "high")
def short(samples): return [0.5 for s in samples if s.completion != "bad"]
def hangs(samples): return _each(samples, lambda s: time.sleep(30))
def exits(samples): return _each(samples, lambda s: sys.exit())
def leaves(samples): return _each(samples, lambda s: os._exit(0))
async def leaves_later(samples):
    return _each(samples, lambda s: os._exit(0))
def forks(samples):
    child = os.fork()
    if not child: os._exit(7)
    return [float(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))] * len(samples)
def mutates(samples):
    for s in samples:
        if s.completion == "bad": s.columns["seen"] = True
    return [0.5] * len(samples)
def digits(samples): return _each(samples, lambda s: "0.5")
def many(samples): return (0.5 for s in samples for _ in range(1 + (s.completion == "bad") * 10**9))
async def waits(samples):
    await asyncio.sleep(0.01)
    return [1.0 for _ in samples]
"""
SAMPLES = [Sample("first", "good"), Sample("second", "bad"), Sample("third", "good")]


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "failing_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def build(name, **settings):
    return scorer(Reward(reward_type=f"failing_rewards:{name}", **settings))


FAILING = [
    "raises", "nan", "infinite", "huge", "text", "short", "exits", "leaves", "leaves_later",
    "mutates", "digits", "many",
]  # fmt: skip


@pytest.mark.parametrize("name", FAILING)
def test_a_failure_stops_and_says_where(name):
    with pytest.raises(ConfigError, match=rf":{name}' failed on the prompt 'second'.*'bad'"):
        build(name)(SAMPLES)


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize(
    ("settings", "instead"),
    [({"on_error": "skip"}, None), ({"on_error": "value", "error_value": -1.0}, -1.0)],
)
def test_only_what_failed_is_skipped_or_replaced_and_it_is_counted(name, settings, instead):
    judge = build(name, **settings)
    assert judge(SAMPLES) == [0.5, instead, 0.5]
    assert judge.failed == 1


def test_a_hang_ends_with_the_timeout():
    before = time.monotonic()
    with pytest.raises(ConfigError, match=r"no scores after 0.2 s for 3 samples"):
        build("hangs", timeout=0.2)(SAMPLES)
    assert build("hangs", timeout=0.2, on_error="skip")(SAMPLES) == [None] * 3
    assert time.monotonic() - before < 25


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize("name", ["exits", "leaves", "raises"])
def test_an_exit_in_a_reward_is_a_failure_and_no_exit(name, timeout, caplog):
    with at(Moment(7)), pytest.raises(ConfigError, match=r"^step 7: reward .*'second'.*'bad'"):
        build(name, timeout=timeout)(SAMPLES)
    with at(Moment(7)):
        build(name, timeout=timeout, on_error="skip")(SAMPLES)
    assert "step 7: reward" in caplog.text


@pytest.mark.filterwarnings("ignore:This process")
def test_a_process_that_a_function_forks_may_exit():
    assert build("forks")(SAMPLES) == [7.0] * 3


def test_what_a_function_does_to_its_samples_stays_with_it():
    build("mutates", on_error="skip")(SAMPLES)
    assert [sample.columns for sample in SAMPLES] == [{}] * 3


@pytest.mark.parametrize("value", [1.2, -0.1])
def test_a_gate_is_between_0_and_1(value, monkeypatch):
    monkeypatch.setattr("aligntune.rewards.text.repetition", lambda samples: [value])
    with pytest.raises(ConfigError, match=f"gave {value}; a gate is a number from 0 to 1"):
        scorer(Reward(reward_type="repetition", gate=True))(SAMPLES[:1])


@pytest.mark.parametrize("reward_type", ["overlong", "semantic_similarity"])
def test_what_is_known_not_to_be_between_0_and_1_is_no_gate(reward_type):
    model = "owner/model" if reward_type == "semantic_similarity" else None
    reward = Reward(reward_type=reward_type, gate=True, model_name=model)
    with pytest.raises(ConfigError, match=r"-1\.\..*from 0 to 1; remove `gate`"):
        check_gate(reward)
    check_gate(reward.model_copy(update={"gate": False}))
    check_gate(Reward(reward_type="safety", gate=True))


LEAVES = """
import asyncio, time
from aligntune.config.rewards import Reward
from aligntune.rewards import Sample, scorer
async def to_thread(samples): await asyncio.to_thread(time.sleep, 60)
async def asleep(samples): await asyncio.sleep(60)
def plain(samples): time.sleep(60)
import aligntune.rewards as r, sys
for function in (to_thread, asleep, plain):
    r._imported = r._function = lambda path: function
    print(scorer(Reward(reward_type="a:b", timeout=0.1, on_error="skip"))([Sample("", "")]))
"""


def test_what_hangs_does_not_keep_a_process_from_its_end():
    assert printed(LEAVES, timeout=30).split() == ["[None]"] * 3


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_an_async_function_is_awaited(timeout):
    assert build("waits", timeout=timeout)(SAMPLES) == [1, 1, 1]


def test_the_command_line_tries_a_reward():
    from click.testing import CliRunner

    from aligntune.cli import app

    command = ["rewards", "test", "math", "--text", "so 4", "--text", "5", "--answer", "4"]
    found = CliRunner().invoke(app, command, catch_exceptions=False)
    assert [line.split()[0] for line in found.output.splitlines()] == ["1.0000", "0.0000"]
    listed = CliRunner().invoke(app, ["rewards"], catch_exceptions=False).output
    assert "code_execution" in listed
    with pytest.raises(ConfigError, match="--params is 'n=2'"):
        CliRunner().invoke(app, [*command, "--params", "n=2"], catch_exceptions=False)
