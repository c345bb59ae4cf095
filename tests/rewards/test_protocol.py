"""Rewards written for TRL work as they are, and any of one's own is tried before a run."""

import pytest

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError
from aligntune.rewards import Sample, check, scorer
from aligntune.rewards.moment import Moment, at
from aligntune.rewards.probe import probe

TURNS = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"})
SAMPLES = [
    Sample("hi", "hello", "hey", columns={"level": 2}, conversation=TURNS, ids=(1, 2)),
    Sample("yo", "ho", None, columns={"level": 3}, ids=(3,)),
]
MODULE = """
import asyncio, sys, time
from functools import partial

def messages(prompts, completions, **kwargs):
    return [len(p) + len(c[0]["content"]) / 10 for p, c in zip(prompts, completions)]
async def waits(completions, **kwargs):
    await asyncio.sleep(0.01)
    return [float(c[0]["content"] == "ho") for c in completions]
def column(completions, level): return [float(n) for n in level]
def answers(*, completions, answer): return [None if a is None else 1.0 for a in answer]
def limit(completions, most=3, **kwargs): return [float(len(c) > most) for c in completions]
def upper(completions, **kwargs): return [c.upper().count("O") for c in completions]
def lengths(completions, **kwargs): return [-abs(20 - len(c)) for c in completions]
def annotated(prompts: list[str], completions: list[str], **_):
    return [float(len(completions[0]))] * len(completions)
def everything(**kwargs):
    assert {"prompts", "completions", "completion_ids", "level", "answer"} < kwargs.keys()
    kwargs["log_metric"]("mine", 3.0)
    kwargs["log_extra"]("note", ["a"] * len(kwargs["prompts"]))
    return [float(sum(ids)) for ids in kwargs["completion_ids"]]
def step(completions, trainer_state): return [trainer_state] * len(completions)
def reverses(completions, **_): completions.reverse(); return [0.0] * len(completions)
def pops(prompts, completions, **_): return [0.0 for c in completions if c.pop()]
class Judge:
    def __call__(self, completions, **_): return [0.5] * len(completions)
instance = Judge()

def nothing(completions, **kwargs): pass
def short(completions, **kwargs): return [1.0]
def one_number(samples): return 0.5
def by_name(samples): return {s.completion: 1.0 for s in samples}
def words(samples): return "good"
def nan(samples): return [float("nan") for _ in samples]
def raises(samples): raise RuntimeError("not\\ntoday")
def exits(samples): sys.exit()
def hangs(samples): time.sleep(60)
def needs(samples): return [float(s.columns["level"]) for s in samples]
def may_need(samples): return [float(s.columns.get("level")) for s in samples]
def asks(completions, **kwargs): return [float(n) for n in kwargs["level"]]
def flat(samples):
    import torch
    return torch.tensor(0.5)
def tensors(samples):
    import torch
    return torch.ones(len(samples))
def arrays(samples):
    import numpy
    return numpy.ones(len(samples), dtype=numpy.float32)
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "trl_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def reward(name, **settings):
    return Reward(reward_type=f"trl_rewards:{name}", **settings)


def score(name, **settings):
    return scorer(reward(name, **settings))(SAMPLES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("messages", [2.5, 1.2]),
        ("waits", [0, 1]),
        ("column", [2, 3]),
        ("answers", [1, None]),
        ("upper", [1, 1]),
        ("lengths", [-15, -18]),
        ("annotated", [5, 5]),
        ("everything", [3, 3]),
        ("instance", [0.5, 0.5]),
        ("tensors", [1, 1]),
        ("arrays", [1, 1]),
    ],
)
@pytest.mark.parametrize("timeout", [None, 10.0])
def test_a_function_for_trl_gets_what_trl_gives_it(name, expected, timeout):
    assert score(name, timeout=timeout) == pytest.approx(expected)


def test_params_are_constants_among_the_columns():
    assert score("limit") == [1, 0]
    assert score("limit", params={"most": 9}) == [0, 0]
    check("trl_rewards:limit", {"whatever": 1}, None)
    check("trl_rewards:column", {}, None)
    with pytest.raises(ConfigError, match="did you mean 'level'"):
        check("trl_rewards:column", {"lvel": 1}, None)


def test_trls_tools_reach_the_function_and_a_trial_logs_nothing():
    logged = []
    tools = Moment().tools | {
        "log_metric": lambda *told: logged.append(told),
        "log_extra": lambda *told: logged.append(told),
        "trainer_state": 5.0,
    }
    with at(Moment(3, tools)):
        assert score("everything") == [3, 3]
        assert score("step", timeout=5.0) == [5, 5]
    assert logged == [("mine", 3.0), ("note", ["a", "a"])]


def test_a_column_that_the_rows_lack_is_named():
    judge = scorer(reward("column"))
    with pytest.raises(ValueError, match="needs the column 'level', which the rows do not have"):
        judge([Sample("", "x")])


@pytest.mark.parametrize("name", ["reverses", "pops"])
def test_a_function_that_changes_its_lists_is_told_so(name):
    with pytest.raises(ConfigError, match="changed the lists"):
        score(name)
    assert SAMPLES[0].completion == "hello"
    assert TURNS[0]["content"] == "be brief"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "it returned None; return a list of one number"),
        ("short", r"it returned \[1.0\]: 1 scores for 2 samples"),
        ("one_number", "it returned 0.5; return a list"),
        ("by_name", "it returned {'It is 4.': 1.0"),
        ("words", "it returned 'good'"),
        ("flat", r"it returned tensor\(0.5"),
        ("nan", "gave nan"),
        ("raises", "failed: RuntimeError: not today"),
        ("exits", "failed: SystemExit"),
        ("pops", "changed the lists"),
    ],
)
def test_what_is_wrong_is_found_before_a_run(name, words):
    with pytest.raises(ConfigError, match=words):
        probe(reward(name))


def test_a_function_that_hangs_is_found_before_a_run():
    with pytest.raises(ConfigError, match=r"no scores after 0.2 s for 2 samples"):
        probe(reward("hangs", timeout=0.2))


@pytest.mark.parametrize("name", ["needs", "may_need", "asks", "column"])
def test_made_up_samples_have_no_columns_and_that_is_no_fault(name):
    probe(reward(name))
    probe(reward(name), SAMPLES)
    with pytest.raises(ConfigError, match="tried on 1 samples, failed"):
        probe(reward(name), [Sample("", "")])


def test_a_function_that_may_fail_may_fail_when_it_is_tried():
    probe(reward("raises", on_error="skip"))
    with pytest.raises(ConfigError, match="returned None"):
        probe(reward("nothing", on_error="skip"))


def test_validation_tries_a_function():
    from aligntune import needs
    from aligntune.config.run import RunConfig

    settings = {
        "algo": "grpo",
        "model": {"name_or_path": "owner/model"},
        "datasets": [{"name": "owner/data"}],
        "rewards": [{"reward_type": "trl_rewards:short"}, {"reward_type": "trl_rewards:tensors"}],
    }
    (problem,) = needs.problems(RunConfig.model_validate(settings))
    assert problem.path == ("rewards", 0, "reward_type")
    assert "1 scores for 2 samples" in problem.message


def test_scores_are_floats_whatever_they_came_as():
    assert {type(value) for value in [*score("tensors"), *score("arrays")]} == {float}
