"""Which runs there are, how they went, and which of them is meant."""

import json
import os
import socket
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntune.artifacts import find_named
from aligntune.compare.comparison import compared
from aligntune.compare.filters import OPERATORS, chosen, parse
from aligntune.compare.history import run_at
from aligntune.compare.resolve import from_mlflow, listed, named, resolved
from aligntune.errors import ConfigError, DataError
from aligntune.recorded import RecordedRun

HERE = {"host": socket.gethostname(), "started": "2026-01-02 03:04:05 UTC"}


def test_runs_are_listed_newest_first_with_what_they_scored(past):
    past.run("old", beta=0.1, scores={"exact_match": [0.0, 0.0, 0.0, 1.0]})
    past.run("new", beta=0.2)
    past.status("old", state="finished", **HERE)
    past.status("new", state="finished", **HERE | {"started": "2026-02-02 03:04:05 UTC"})
    runs = listed(past.output, [])
    assert [run.name for run in runs] == ["new", "old"]
    assert [run.metrics["exact_match"] for run in runs] == [0.5, 0.25]
    assert runs[0].metrics["dpo/exact_match"] == 0.5
    assert runs[0].metrics["dpo/final_loss"] == 0.5


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({"state": "failed", "error": "dpo: the loss is nan"}, "failed"),
        ({"state": "stopped", "error": "SIGTERM"}, "stopped"),
        ({"state": "running", "pid": os.getpid()}, "running"),
        ({"state": "running", "pid": os.getpid(), "host": "elsewhere"}, "running"),
        ({"state": "finished"}, "unfinished"),  # its artifacts were removed
    ],
)
def test_how_a_run_went_is_what_its_process_said(past, told, state):
    folder = past.run("one", done=False)
    past.status("one", **HERE | told)
    run = run_at(folder)
    assert (run.state, run.error) == (state, told.get("error", ""))


def test_a_run_whose_process_was_killed_is_not_running(past):
    folder = past.run("one", done=False)
    gone = subprocess.Popen(["true"])
    gone.wait()
    past.status("one", state="running", pid=gone.pid, **HERE)
    assert run_at(folder).state == "stopped"


def test_a_run_from_before_there_was_a_status_is_told_by_what_is_there(past):
    assert run_at(past.run("whole")).state == "finished"
    assert run_at(past.run("half", done=False)).state == "unfinished"


def test_what_is_no_run_is_not_listed_and_cannot_be_named(past, tmp_path):
    past.run("one")
    (past.output / "runs" / "empty").mkdir()
    assert [run.name for run in listed(past.output, [])] == ["one"]
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "plan.json").write_text("[1, 2")
    with pytest.raises(DataError, match="holds no run"):
        named(str(tmp_path / "odd"), past.output)


def test_an_artifact_outside_of_the_stages_is_not_followed(past):
    folder = past.run("one")
    plan = json.loads((folder / "plan.json").read_text())
    plan[0]["artifact"] = f"../stages/{plan[0]['artifact']}"
    (folder / "plan.json").write_text(json.dumps(plan))
    assert run_at(folder).stages[0].made is None


def test_a_run_is_found_by_name_and_directory(past):
    folder = past.run("one")
    for name in ("one", str(folder)):
        assert named(name, past.output).name == "one"
    assert len(resolved(["one", str(folder)], ["algo=dpo"], past.output)) == 1


def test_a_run_that_only_mlflow_knows_is_told_by_what_was_logged(past):
    """With those artifacts that can be reached under their names."""
    name = past.stage("dpo", {"a": 1}, {"final_loss": 0.5}, {})
    logged = {"exact_match": 0.5, "exact_match/low": 0.2, "exact_match/high": 0.8}
    stages = (
        logged_run("dpo", tags={"aligntune.stage": "dpo", "aligntune.artifact": name}),
        logged_run("evaluate-dpo", metrics=logged, tags={"aligntune.artifact": "evaluate-x"}),
    )
    params = {"algo": "dpo", "train.beta": "0.1", "datasets.0.name": "1"}
    run = from_mlflow(logged_run("gone", params=params, stages=stages), past.output)
    assert (run.name, run.algo, run.state, run.folder) == ("gone", "dpo", "finished", None)
    assert run.settings == {"algo": "dpo", "train.beta": 0.1, "datasets.0.name": 1}
    assert run["dpo"].made.manifest.metrics == {"final_loss": 0.5}
    assert run.metrics["exact_match"] == 0.5
    past.run("here", scores={"exact_match": [1.0, 0.0]})
    made = compared([named("here", past.output), run], past.output)
    assert [(s.mean, s.low) for s in made.scores if s.run == 1] == [(0.5, 0.2)]
    assert made.notes == ("B (gone) is not compared by prompt: only MLflow has its scores.",)


def logged_run(name, params=(), metrics=(), tags=(), stages=()):
    started = 1_700_000_000_000
    return RecordedRun(
        f"id-{name}", name, "FINISHED", started, dict(params), dict(metrics), dict(tags), stages
    )


def test_a_name_that_is_none_is_answered_with_the_nearest(past):
    past.run("first")
    with pytest.raises(ConfigError, match="unknown run 'frist'; did you mean 'first'"):
        named("frist", past.output)
    with pytest.raises(ConfigError, match="there is no run 'x' below"):
        named("x", past.output / "nowhere")
    with pytest.raises(ConfigError, match=r"mlflow\.db"):
        named("f" * 32, past.output)


def test_a_run_of_which_there_is_data_alone_is_said_to_be_untrained(past):
    past.run("first")
    (past.output / "runs" / "second" / "stages").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"run 'second' below .* has not been trained yet"):
        named("second", past.output)
    with pytest.raises(ConfigError, match=r"choose from first$"):
        named("zzz", past.output)


@pytest.mark.parametrize(
    ("conditions", "names"),
    [
        (["algo=dpo"], {"low", "high", "none"}),
        (["algo==grpo"], set()),
        (["train.beta>0.1"], {"high"}),
        (["train.beta<=0.10"], {"low"}),
        (["exact_match>=0.5", "name!=none"], {"low", "high"}),
        (["exact_match < 0.5"], set()),
        (["dpo/final_loss=0.5", "name~i"], {"high"}),
        (["model~tiny", "state=unfinished"], {"none"}),
        (["train.beta!=0.1"], {"high", "none"}),
        (["train.note=null"], {"low", "none"}),
        (["train.note=true"], {"high"}),
    ],
)
def test_conditions_choose_runs(past, conditions, names):
    past.run("low", beta=0.1)
    past.run("high", beta=0.5, note=True)
    past.run("none", done=False)
    assert {run.name for run in listed(past.output, conditions)} == names


def test_a_condition_that_is_none_or_about_nothing_says_what_to_write(past):
    past.run("one", beta=0.1)
    with pytest.raises(ConfigError, match="write KEY OPERATOR VALUE"):
        listed(past.output, ["beta"])
    with pytest.raises(ConfigError, match="give a number"):
        listed(past.output, ["exact_match>high"])
    with pytest.raises(ConfigError, match="did you mean 'exact_match'"):
        listed(past.output, ["exact_mach>0.5"])


@settings(max_examples=50)
@given(
    key=st.from_regex(r"[a-z][a-z_./]{0,20}", fullmatch=True),
    operator=st.sampled_from(sorted(OPERATORS)),
    number=st.floats(allow_nan=False, allow_infinity=False),
)
def test_every_condition_is_read_as_written(key, operator, number):
    read = parse(f" {key} {operator} {number!r} ")
    assert (read.key, read.operator, float(read.value)) == (key, operator, number)
    assert chosen([], [f"{key}{operator}{number!r}"]) == []


def test_a_decision_and_a_version_are_the_runs(past):
    facts = {"registered_model": "m", "versions": {"dpo": "3"}, "aliases": {"candidate": "3"}}
    stages = {
        "register": past.stage("register", {}, {}, facts),
        "promote": past.stage(
            "promote", {}, {}, {"verdict": "reject", "why": "worse", "aliases": {"previous": "3"}}
        ),
    }
    run = run_at(past.folder("one", {"algo": "dpo"}, stages))
    assert (run.decision, run.why) == ("reject", "worse")
    assert run.version == "v3 (candidate, previous)"
    assert listed(past.output, ["decision=reject"]) == [run]


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_listed(past, caplog):
    for name in ("good", "torn", "odd", "empty"):
        past.run(name)
    runs = past.output / "runs"
    (runs / "torn" / "config.yaml").write_text("algo: [dpo")
    (runs / "odd" / "config.yaml").write_text("algo: dpo\nmodel: words\n")
    (runs / "empty" / "plan.json").write_text("")
    assert {run.name: run.model for run in listed(past.output, [])} == {
        "good": "owner/tiny", "odd": "?",
    }  # fmt: skip
    left_out = [record.message for record in caplog.records]
    assert [text.partition(":")[0] for text in left_out] == [
        "run empty is left out", "run torn is left out",
    ]  # fmt: skip
    assert "config.yaml:1:" in left_out[1]
    with pytest.raises(ConfigError, match=r"config\.yaml:1:"):
        named("torn", past.output)


def test_an_artifact_that_many_runs_share_is_read_once(past, monkeypatch):
    from aligntune.compare import history

    asked = []
    monkeypatch.setattr(history, "find_named", lambda *a: asked.append(a[1:]) or find_named(*a))
    for number in range(5):
        past.run(f"run-{number}", beta=0.1)
    assert [run.state for run in listed(past.output, [])] == ["finished"] * 5
    assert len(asked) == len(set(asked)) == 3
