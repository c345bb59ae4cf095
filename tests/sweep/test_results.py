"""Which run of a sweep is the best, and what is said of its lead."""

import io

import pytest
from past import Past
from rich.console import Console

from aligntune.config.run import RunConfig
from aligntune.errors import DataError
from aligntune.sweep.axes import space
from aligntune.sweep.results import Outcome, keep, measured, record, results
from aligntune.sweep.runs import Run, Sweep
from aligntune.sweep.show import show_results

SHARED = {"rewards/length": [0.0, 1.0, 0.5, 0.5]}
SCORES = {"a": [0, 0, 1, 0], "b": [1, 1, 1, 1], "c": [0, 1, 1, 0]}


@pytest.fixture
def config(tmp_path):
    return RunConfig.model_validate(
        {
            "algo": "dpo",
            "model": {"name_or_path": "m"},
            "datasets": [{"name": "d"}],
            "logging": {"output_dir": str(tmp_path / "out"), "sweep": "s"},
        }
    )


@pytest.fixture
def outcome(tmp_path, config):
    """Makes a finished run with these scores by row."""
    past = Past(tmp_path / "out")

    def make(name, metric="exact_match", scores=None, **more):
        by_row = {metric: [float(x) for x in scores or SCORES[name]]}
        past.run(name, scores=by_row | more.pop("besides", {}), beta=name, **more)
        return Outcome(Run(name, {"train.beta": name}, (), config, config.registry))

    return make


@pytest.fixture
def sweep(config):
    def make(outcomes):
        varied = space(["train.beta=a,b,c"])
        return Sweep("s", (), varied, tuple(o.run for o in outcomes), "exact_match")

    return make


def printed(sweep, outcomes, found):
    console = Console(file=io.StringIO(), width=200)
    show_results(sweep(outcomes), outcomes, found, ["model    m v3 (candidate)"], console)
    return console.file.getvalue()


def test_the_best_comes_first_and_its_lead_is_over_the_second(outcome, tmp_path, sweep):
    outcomes = [outcome(name) for name in "abc"]
    found = results(outcomes, tmp_path / "out", "exact_match")
    assert [o.run.name for o in found.ranked] == ["b", "c", "a"]
    assert found.lead.paired.difference == pytest.approx(0.5)
    assert found.lead.paired.low <= 0.5 <= found.lead.paired.high
    assert found.scores["a"].paired.difference == pytest.approx(-0.75)
    text = printed(sweep, outcomes, found)
    assert "+50.0 points over c, the second (95 % interval" in text.replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert "best of 3 by the same 4 rows that measured it" in text
    assert "m v3 (candidate)" in text


def test_lower_is_better_where_the_metric_says_so(outcome, tmp_path):
    outcomes = [outcome(name, "nll", [value] * 4) for name, value in (("a", 2.0), ("b", 1.0))]
    found = results(outcomes, tmp_path / "out", "nll")
    assert found.best.name == "b"
    assert found.lead.paired.difference == pytest.approx(-1.0)


def test_no_run_is_the_best_by_what_means_something_else_in_each(outcome, tmp_path, sweep):
    def judged(weight):
        return {"rewards": [{"reward_type": "length", "weight": weight, "params": {}}]}

    outcomes = [
        outcome(name, "reward", [weight] * 4, judged=judged(weight), besides=besides)
        for name, weight, besides in (("a", 1, SHARED), ("b", 5, SHARED), ("c", 9, {}))
    ]
    assert results(outcomes[:2], tmp_path / "out", None).metric == "rewards/length"
    assert results(outcomes, tmp_path / "out", "reward") is None
    assert "no run is the best" in printed(sweep, outcomes, None)


def test_a_failed_run_is_listed_with_its_reason_and_has_no_rank(outcome, tmp_path, config, sweep):
    bad = Outcome(
        Run("bad", {"train.beta": "9"}, (), config, config.registry), DataError("rows \x1b[31m")
    )
    outcomes = [bad, outcome("a")]
    found = results(outcomes, tmp_path / "out", "exact_match")
    assert [o.run.name for o in found.ranked] == ["a"]
    assert (found.lead, found.comparison) == (None, None)
    text = printed(sweep, outcomes, found)
    assert "rows \\x1b[31m" in text
    assert "optimistic" not in text
    told = record("s", found, outcomes)
    assert [run["state"] for run in told["runs"]] == ["failed", "finished"]
    keep(tmp_path / "kept", "s", found, outcomes)
    assert (tmp_path / "kept" / "sweep.json").exists()


def test_nothing_finished_has_no_best(config, tmp_path, sweep):
    bad = Outcome(Run("bad", {"train.beta": "9"}, (), config, config.registry), DataError("no"))
    assert results([bad], tmp_path / "out", None) is None
    assert "no run is the best: none has a result" in printed(sweep, [bad], None)


def test_a_metric_that_nobody_measures_is_said_after_the_first_run(outcome, tmp_path):
    run = outcome("a").run
    assert measured(run, tmp_path / "out", "exact_match") == 0.25
    with pytest.raises(DataError, match="was not measured by it: unknown metric 'nll'"):
        measured(run, tmp_path / "out", "nll")
