"""A reward that fails is named with its prompt and completion, or is dealt with as asked."""

import time

import pytest

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError
from aligntune.rewards import scorer
from aligntune.rewards.types import Sample

MODULE = """
import asyncio, time
def _each(samples, what):
    return [what(s) if s.completion == "bad" else 0.5 for s in samples]
def raises(samples): return _each(samples, lambda s: 1 / 0)
def nan(samples): return _each(samples, lambda s: float("nan"))
def infinite(samples): return _each(samples, lambda s: float("inf"))
def text(samples): return _each(samples, lambda s: "high")
def short(samples): return [0.5 for s in samples if s.completion != "bad"]
def hangs(samples): return _each(samples, lambda s: time.sleep(30))
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


FAILING = ["raises", "nan", "infinite", "text", "short"]


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
    assert time.monotonic() - before < 5


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
