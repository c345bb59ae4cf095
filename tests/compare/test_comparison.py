"""What a comparison of runs says."""

import json
import math
import time

import numpy as np
import pytest

from aligntune.compare.comparison import compared, record
from aligntune.compare.resolve import resolved
from aligntune.errors import ConfigError
from aligntune.evaluate.margin import holm
from aligntune.evaluate.stats import paired_difference
from aligntune.report.compare import render

RNG = np.random.default_rng(0)


@pytest.fixture
def compare(past):
    def compare(*names, count=2):
        return compared(resolved(names, [], past.output), past.output, count)

    return compare


def scores_of(made, metric):
    return [score for score in made.scores if score.metric == metric]


def test_only_settings_that_differ_are_shown_and_unset_is_as_null(past, compare):
    past.run("a", beta=0.1, max_steps=5, note=None)
    past.run("b", beta=0.2, max_steps=5)
    (change,) = compare("a", "b").config
    assert (change.key, change.values) == ("train.beta", ("0.1", "0.2"))


def test_a_section_that_one_run_lacks_is_one_difference(past, compare):
    past.run("a")
    past.run("b", beta=0.1, max_steps=5)
    (change,) = compare("a", "b").config
    assert (change.key, change.values) == ("train", (None, "beta: 0.1\nmax_steps: 5"))


def test_shared_stages_are_told_from_those_that_differ_and_why(past, compare):
    past.run("a", beta=0.1)
    past.run("b", beta=0.2)
    made = compare("a", "b")
    assert [(s.label, s.same, s.why) for s in made.stages] == [
        ("data", True, ""), ("dpo", False, "train.beta"), ("evaluate-dpo", False, "model"),
    ]  # fmt: skip
    (data,) = made.data
    assert data.same
    assert (data.sides[0].rows, data.sides[0].digest[:2]) == (4, "d1")
    assert data.sides[0].sources == "pairs.jsonl (4 rows)"


def test_differences_are_paired_by_prompt_as_an_evaluation_pairs_them(past, compare):
    base, own = RNG.normal(1.0, 1, 60), RNG.normal(0.0, 1, 60)
    past.run("a", beta=1, scores={"nll": list(base)})
    past.run("b", beta=2, scores={"nll": list(own)})
    first, second = scores_of(compare("a", "b"), "nll")
    expected = paired_difference(
        own, base, confidence=0.95, resamples=1000, seed=42, higher_is_better=False
    )
    assert first.paired is None
    found = second.paired
    assert (found.difference, found.low, found.high) == (
        expected.difference, expected.low, expected.high,
    )  # fmt: skip
    assert (found.verdict, found.wins, found.losses) == ("better", expected.wins, expected.losses)


def test_rows_that_only_one_run_scored_are_left_out(past, compare):
    past.run("a", beta=1, scores={"exact_match": [1.0, 0.0, 0.0]})
    past.run("b", beta=2, scores={"exact_match": [1.0, 1.0, math.nan]})
    found = scores_of(compare("a", "b"), "exact_match")[1].paired
    assert (found.ties, found.wins, found.losses) == (1, 1, 0)


def test_rows_of_one_prompt_are_one_unit(past, compare):
    """Six rows won, but of one prompt: no evidence."""
    past.run("a", beta=1, scores={"exact_match": [0.0] * 7}, asked=[0] * 6 + [1])
    past.run("b", beta=2, scores={"exact_match": [1.0] * 6 + [0.0]}, asked=[0] * 6 + [1])
    found = scores_of(compare("a", "b"), "exact_match")[1].paired
    assert (found.wins, found.ties, found.verdict) == (1, 1, "inconclusive")


def test_a_mean_that_is_not_of_the_scores_is_not_paired(past, compare):
    for name, beta in (("a", 1), ("b", 2)):
        folder = past.run(name, beta=beta, scores={"reward": [1.0, 2.0 + beta]})
        for path in (folder.parent.parent / "stages").glob("evaluate-*/evaluation.json"):
            path.write_text(path.read_text().replace('"mean": 2', '"mean": 7'))
    assert [score.paired for score in compare("a", "b").scores] == [None, None]


def test_a_metric_without_scores_by_row_is_shown_and_not_paired(past, compare):
    """As an evaluation writes perplexity."""
    past.run("a", beta=1, scores={"nll": [1.0, 2.0], "perplexity": [7.0, 8.0]})
    past.run("b", beta=2, scores={"nll": [1.0, 3.0], "perplexity": [7.0, 9.0]})
    made = compare("a", "b")
    assert [score.paired for score in scores_of(made, "perplexity")] == [None, None]
    assert scores_of(made, "nll")[1].paired


def test_other_conditions_are_not_paired_and_the_reason_is_said(past, compare):
    past.run("a", beta=1)
    past.run("b", beta=2, conditions={"max_new_tokens": 16})
    made = compare("a", "b")
    assert [score.paired for score in made.scores] == [None, None]
    assert made.tests == 0
    (note,) = made.notes
    assert "B (b) is not compared by prompt with A" in note
    assert "max_new_tokens 16 instead of 8" in note


JUDGES = [
    {"reward_type": "length", "weight": 1.0, "params": {"max_length": 4}, "timeout": None},
    {"reward_type": "repetition", "weight": 0.5, "params": {}, "timeout": None},
]


@pytest.mark.parametrize(
    ("at", "change", "apart", "field"),
    [
        (1, {"weight": 5.0}, {"reward"}, "rewards.1.weight"),
        (0, {"params": {"max_length": 40}}, {"reward", "rewards/length"}, "params.max_length"),
        (1, {"timeout": 9}, set(), None),
    ],
)
def test_rewards_of_other_settings_are_not_held_against_each_other(
    past, compare, at, change, apart, field
):
    """More weight alone would be better beyond doubt."""
    scores = {"exact_match": [0.0, 1.0] * 9, "rewards/length": [0.5] * 18}
    past.run("a", scores={**scores, "reward": [0.5] * 18}, judged={"rewards": JUDGES})
    other = [judge | change if number == at else judge for number, judge in enumerate(JUDGES)]
    past.run("b", scores={**scores, "reward": [5.0] * 18}, judged={"rewards": other})
    made = compare("a", "b")
    unpaired = {score.metric for score in made.scores if score.run and not score.paired}
    assert unpaired == apart
    assert made.tests == 3 - len(apart)
    assert [field in note and "reward" in note for note in made.notes] == ([True] if field else [])


def test_what_counts_in_other_tokens_is_not_held_against_each_other(past, compare):
    scores = {"exact_match": [0.0, 1.0] * 9, "nll": [0.5] * 18}
    past.run("a", scores=scores, beta=1)
    past.run("b", scores=scores | {"nll": [0.1] * 18}, beta=2, tokens="t2")
    made = compare("a", "b")
    assert [score.metric for score in made.scores if score.paired] == ["exact_match"]
    (note,) = made.notes
    assert note == "B (b) is not compared with A by nll: it is measured otherwise there (tokens)."


def test_a_run_that_was_not_evaluated_says_so(past, compare):
    past.run("a", beta=1)
    past.run("b", beta=2, done=False)
    assert compare("a", "b").notes == (
        "B (b) is not compared by prompt: there is no evaluation of its result.",
    )


def test_holm_gives_the_published_example():
    """Holm (1979) as in R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_one_success_among_many_tests_is_no_success(past, compare):
    """Six prompts won of six: p = 0.03 alone, and 0.12 among four."""
    won, tied = [1.0] * 6, [0.0, 1.0] * 3
    metrics = {"exact_match": [0.0] * 6, "m1": tied, "m2": tied, "m3": tied}
    past.run("a", beta=1, scores=metrics)
    past.run("b", beta=2, scores=metrics | {"exact_match": won})
    made = compare("a", "b")
    found = scores_of(made, "exact_match")[1].paired
    assert found.p_value == pytest.approx(2 / 64)
    assert found.adjusted == pytest.approx(8 / 64)
    assert (found.verdict, made.tests) == ("inconclusive", 4)


def test_what_only_describes_a_model_is_neither_better_nor_among_the_tests(past, compare):
    """Nine prompts, all of them longer."""
    right = [0.0, 1.0, 1.0] * 3
    past.run("a", beta=1, scores={"exact_match": right, "answer_tokens": [0.0] * 9})
    past.run("b", beta=2, scores={"exact_match": right, "answer_tokens": [1.0] * 9})
    made = compare("a", "b")
    assert scores_of(made, "answer_tokens")[1].paired.verdict == "differs"
    assert scores_of(made, "answer_tokens")[1].paired.adjusted == pytest.approx(2 / 2**9)
    assert made.tests == 1


def test_prompts_that_divide_the_runs_come_first(past, compare):
    scores = [0.0, 1.0, 1.0, 1.0, 0.0]
    past.run("a", beta=1, scores={"exact_match": scores}, answers=["x"] * 5)
    past.run(
        "b", beta=2, scores={"exact_match": [0.0, 1.0, 1.0, 1.0, 1.0]},
        answers=["x", "x", "y z", "x", "x"],
    )  # fmt: skip
    made = compare("a", "b")
    assert [row.prompt[0]["content"] for row in made.first] == ["question 0", "question 1"]
    assert [row.prompt[0]["content"] for row in made.apart] == ["question 4", "question 2"]
    assert made.apart[0].answers[1].scores == {"exact_match": 1.0}


def test_a_shared_stage_is_one_line_in_its_charts(past, compare):
    past.run("a", scores={"exact_match": [0.0, 1.0]})
    past.run("b", scores={"exact_match": [1.0, 1.0]}, conditions={"rows": 3})
    past.run("c", beta=3, curve=[0.7, 0.1])
    overlay = compare("a", "b", "c").overlays[0]
    assert [(line.runs, line.values[-1]) for line in overlay.lines] == [((0, 1), 0.5), ((2,), 0.1)]


def test_losses_of_different_algorithms_are_not_in_one_chart(past, compare):
    past.run("a", beta=1)
    key = past.stage("grpo", {"other": 1}, {}, {}, {}, [0.1, 0.2])
    past.folder("b", {"algo": "grpo"}, {"grpo": key})
    found = [(overlay.stage, overlay.metric) for overlay in compare("a", "b").overlays]
    assert found == [
        ("dpo", "train/loss"), ("grpo", "train/loss"), ("dpo / grpo", "train/entropy"),
    ]  # fmt: skip


def test_one_run_is_no_comparison(past, compare):
    past.run("a")
    with pytest.raises(ConfigError, match="only 'a' was found"):
        compare("a")
    with pytest.raises(ConfigError, match="none was found"):
        compare()


def test_the_record_is_json_without_nan_and_names_runs_by_letters(past, compare):
    past.run("a", beta=1)
    past.run("b", beta=2, curve=[0.5] * 5000)
    made = record(compare("a", "b"))
    again = json.loads(json.dumps(made, allow_nan=False))
    assert [score["run"] for score in again["scores"]] == ["A", "B"]
    line = again["overlays"][0]["lines"][1]
    assert line["runs"] == ["B"]
    assert len(line["steps"]) == len(line["values"]) <= 1000
    assert set(again["first"][0]["answers"]) == {"A", "B"}


def test_twenty_runs_with_ten_thousand_points_each_take_seconds(past, compare):
    for number in range(20):
        scores = {"nll": list(RNG.normal(-number, 1, 200))}
        curve = list(map(float, RNG.normal(size=10_000)))
        past.run(f"run-{number}", beta=number, scores=scores, curve=curve)
    began = time.process_time()
    made = compare(*(f"run-{number}" for number in range(20)))
    page = render(made)
    assert time.process_time() - began < 10
    assert sum(len(line.steps) for line in made.overlays[0].lines) == 200_000
    assert len(page) < 2_000_000
    # So many tests need so many resamples, or nothing could be found.
    assert [score.paired.verdict for score in made.scores if score.run] == ["better"] * 19
    assert max(score.paired.adjusted for score in made.scores if score.run) < 0.011
