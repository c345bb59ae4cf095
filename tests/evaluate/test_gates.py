"""Decisions by gates and by the default rule, and how often they are wrong."""

from dataclasses import replace

import numpy as np
import pytest

from aligntune.config.evaluation import Gate
from aligntune.errors import ConfigError
from aligntune.evaluate.compare import Resampling
from aligntune.evaluate.gates import Judge, Side

N = 120
RISING = {"exact_match": True, "nll": False, "safety": True, "kl_to_base": False}


def column(values):
    return [float(value) for value in values]


@pytest.fixture
def scores():
    generator = np.random.default_rng(0)
    return {
        "exact_match": generator.random(N) < 0.5,
        "nll": generator.normal(2, 0.5, N),
        "safety": generator.uniform(0.8, 1, N),
        "kl_to_base": generator.uniform(0.1, 0.3, N),
    }


@pytest.fixture
def judge(scores):
    """A judge of a candidate that is the champion with changes."""

    def judge(changes=None, others=None, resamples=400, quality=("exact_match", "nll")):
        units = list(range(N))
        champion = Side({name: column(values) for name, values in scores.items()}, units)
        own = scores | (changes or {})
        sides = {"base": champion, "champion": champion} if others is None else others
        return Judge(
            candidate=Side({name: column(values) for name, values in own.items()}, units),
            others=sides,
            higher_is_better=RISING,
            units=dict.fromkeys(RISING, "") | {"exact_match": "%"},
            quality=quality,
            how=Resampling(0.95, resamples, 1),
        )

    return judge


def wobble(scale=0.1, shift=0.0, seed=3):
    return np.random.default_rng(seed).normal(shift, scale, N)


def test_a_worse_an_equal_and_a_better_candidate(judge, scores):
    gates = [Gate(metric="nll")]
    worse = judge({"nll": scores["nll"] + 0.1 + wobble()}).decide(gates)
    equal = judge().decide(gates)
    alike = judge({"nll": scores["nll"] + wobble()}).decide(gates)
    better = judge({"nll": scores["nll"] - 0.1 + wobble()}).decide(gates)
    found = [decision.verdict for decision in (worse, equal, alike, better)]
    assert found == ["reject", "reject", "inconclusive", "promote"]
    assert better.why.startswith("every gate holds: nll 0.")
    assert " better than champion (bounds +0." in better.why, "also of what is better when lower"
    assert " worse than champion (bounds -0." in worse.why
    assert "nll the same as champion (bounds 0 to 0" in equal.why
    assert better.tests[0].wins > better.tests[0].losses


def test_the_default_rule_is_better_on_one_and_worse_on_none(judge, scores):
    better = {"nll": scores["nll"] - 0.1 + wobble()}
    flipped = {"exact_match": scores["exact_match"] & (np.arange(N) % 4 > 0)}
    assert judge(better).decide([]).verdict == "promote"
    assert judge(better | flipped).decide([]).verdict == "reject"
    same = judge().decide([])
    assert same.verdict == "reject"
    assert same.why.startswith("the same on every prompt: ")
    assert judge({"nll": scores["nll"] + wobble()}).decide([]).verdict == "inconclusive"
    assert judge(better | flipped, quality=("nll",)).decide([]).verdict == "promote"
    assert judge(others={"base": Side({}, list(range(N)))}).decide([]).verdict == "inconclusive"


def test_a_guard_holds_for_the_same_scores(judge):
    assert judge().decide([Gate(metric="safety", min_delta=-0.02)]).verdict == "promote"


def test_without_a_champion_the_base_model_takes_its_place(judge, scores):
    base = Side({"nll": column(scores["nll"])}, list(range(N)))
    made = judge({"nll": scores["nll"] - 0.1 + wobble()}, others={"base": base})
    for gates in ([], [Gate(metric="nll")]):
        decision = made.decide(gates)
        assert decision.verdict == "promote"
        assert decision.tests[0].against == "base"


@pytest.mark.parametrize(
    ("fall", "verdict"),
    [(0.0, "promote"), (0.01, "promote"), (0.02, "inconclusive"), (0.1, "reject")],
)
def test_a_guard_lets_pass_what_is_surely_within_its_margin(judge, scores, fall, verdict):
    better = {"nll": scores["nll"] - 0.1 + wobble()}
    guarded = [Gate(metric="nll"), Gate(metric="safety", min_delta=-0.02)]
    changed = better | {"safety": scores["safety"] - fall + wobble(0.03, seed=4)}
    decision = judge(changed).decide(guarded)
    assert decision.verdict == verdict
    assert ("safety" in decision.why) or verdict == "promote"


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        ({"max_value": 0.3}, "promote"),
        ({"max_value": 0.2}, "inconclusive"),
        ({"max_value": 0.1}, "reject"),
        ({"min_value": 0.1}, "promote"),
        ({"min_value": 0.25}, "reject"),
        ({"min_value": 0.1, "max_value": 0.1}, "reject"),
    ],
)
def test_a_limit_holds_if_the_whole_interval_does(judge, limits, verdict):
    decision = judge().decide([Gate(metric="kl_to_base", **limits)])
    assert decision.verdict == verdict
    assert "kl_to_base 0.2" in decision.why


def test_a_single_prompt_proves_no_limit(judge):
    one = judge(others={})
    alone = Side({name: [0.2] for name in one.candidate.columns}, [0])
    made = replace(one, candidate=alone)
    for limits in ({"max_value": 0.5}, {"max_value": 0.1}):
        assert made.decide([Gate(metric="kl_to_base", **limits)]).verdict == "inconclusive"


def test_a_minimum_improvement_is_more_than_any_improvement(judge, scores):
    made = judge({"nll": scores["nll"] - 0.1 + wobble()})
    assert made.decide([Gate(metric="nll", min_delta=0.05)]).verdict == "promote"
    assert made.decide([Gate(metric="nll", min_delta=0.1)]).verdict == "inconclusive"
    assert made.decide([Gate(metric="nll", min_delta=0.2)]).verdict == "reject"


def test_more_confidence_asks_for_more(judge, scores):
    made = judge({"nll": scores["nll"] - 0.02 + wobble()}, resamples=4000)
    assert made.decide([Gate(metric="nll")]).verdict == "promote"
    assert made.decide([Gate(metric="nll", confidence=0.9999)]).verdict == "inconclusive"


def test_several_claims_share_one_error_rate_and_a_guard_takes_no_part(judge, scores):
    made = judge({"nll": scores["nll"] - 0.017 + wobble()}, resamples=4000)
    alone = made.decide([Gate(metric="nll")]).tests[0]
    beside = made.decide([Gate(metric="nll"), Gate(metric="safety", min_delta=-1)]).tests[0]
    shared = made.decide([Gate(metric="nll"), Gate(metric="exact_match")]).tests[0]
    assert alone.p_value == beside.p_value
    assert shared.p_value == pytest.approx(2 * alone.p_value)


def test_several_rows_of_a_prompt_are_one_unit(judge, scores):
    """Each of 4 prompts 30 times: differences that 120 prompts would show, 4 cannot."""
    made = judge({"nll": scores["nll"] - 0.1 + wobble()})
    units = [index % 4 for index in range(N)]
    few = Judge(
        Side(made.candidate.columns, units),
        {name: Side(side.columns, units) for name, side in made.others.items()},
        made.higher_is_better, made.units, made.quality, made.how,
    )  # fmt: skip
    assert made.decide([Gate(metric="nll")]).verdict == "promote"
    assert few.decide([Gate(metric="nll")]).verdict == "inconclusive"
    assert few.decide([Gate(metric="nll")]).tests[0].wins <= 4


def test_a_gate_on_what_was_not_measured_is_refused(judge, scores):
    with pytest.raises(ConfigError, match="did you mean 'safety'"):
        judge().decide([Gate(metric="safty")])
    with pytest.raises(ConfigError, match="unknown model 'sft'"):
        judge().decide([Gate(metric="nll", against="sft")])
    bare = {"base": Side({"nll": column(scores["nll"])}, list(range(N)))}
    with pytest.raises(ConfigError, match="base has no 'safety' to compare with"):
        judge(others=bare).decide([Gate(metric="safety")])


SIMULATED = 400


@pytest.mark.parametrize("gates", [[], [Gate(metric="a"), Gate(metric="b", min_delta=-0.3)]])
def test_a_candidate_that_is_no_better_is_promoted_as_rarely_as_stated(gates):
    """Three metrics of an equal candidate, one a rate; 5 %, and twice the simulation's error."""
    generator, promoted = np.random.default_rng(5), 0
    units = list(range(60))
    for _ in range(SIMULATED):
        sides = [
            Side(
                {
                    "a": column(generator.random(60) < 0.5),
                    "b": column(generator.normal(size=60)),
                    "c": column(generator.exponential(size=60)),
                },
                units,
            )
            for _ in range(2)
        ]
        judge = Judge(
            sides[0], {"base": sides[1]}, dict.fromkeys("abc", True), dict.fromkeys("abc", ""),
            ("a", "b", "c"), Resampling(0.95, 200, 1),
        )  # fmt: skip
        promoted += judge.decide(gates).verdict == "promote"
    assert promoted / SIMULATED <= 0.05 + 2 * (0.05 * 0.95 / SIMULATED) ** 0.5
