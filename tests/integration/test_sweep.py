"""A whole sweep on a tiny model: killed in the middle, finished by the same command, compared, and
its best run registered."""

import json
import os
import signal

import pytest
from mlflow import MlflowClient
from waits import until

from aligntune.errors import DataError
from aligntune.sweep.choose import Choice, chosen
from aligntune.sweep.here import sweep_here

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PRECOMPUTED = "train.precompute_ref_log_probs=true"
SETTINGS = ("--set", "train.beta=0.05,0.1,0.3", "--metric", "preference_margin")
RUNS = ["tiny-beta-0.05", "tiny-beta-0.1", "tiny-beta-0.3"]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("output")


def mlflow_runs(output, condition):
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("aligntune").experiment_id
    return client.search_runs([experiment], condition, max_results=1000)


def mean(output, run):
    path = output / "runs" / run / "stages" / "evaluate-dpo" / "evaluation.json"
    return json.loads(path.read_text())["metrics"]["preference_margin"]["mean"]


def test_a_sweep_that_is_killed_is_finished_by_the_same_command(aligntune, write_config, output):
    arguments = ("sweep", "--config", write_config(output), *SETTINGS, "--set", PRECOMPUTED)
    process = aligntune(*arguments)
    second = output / "runs" / RUNS[1] / "stages" / "sft"
    until(second.exists, "the second run's sft", 400, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (sft,) = (output / "stages").glob("sft-*")
    made = sft.stat().st_ino
    assert not (output / "runs" / RUNS[2]).exists()

    process = aligntune(*arguments)
    said, _ = process.communicate(timeout=800)
    assert process.returncode == 0, said
    assert f"{RUNS[0]}: finished before" in said
    assert [path.stat().st_ino for path in (output / "stages").glob("sft-*")] == [made]
    assert len(list((output / "stages").glob("dpo-*"))) == 3
    assert len(list((output / "stages").glob("reference-*"))) == 1
    assert {path.name for path in (output / "runs").iterdir()} == set(RUNS)
    assert "best of 3 by the same 12 rows" in said
    assert (output / "sweeps" / "tiny" / "compare.html").read_text().count("tiny-beta-0.3") > 1


@pytest.mark.parametrize("stage", ["sft", "reference"])
def test_what_the_runs_share_was_made_once(output, stage):
    built = mlflow_runs(output, f"tags.`aligntune.stage` = '{stage}'")
    assert sum("aligntune.cached_from" not in run.data.tags for run in built) == 1
    assert len(built) >= 3


def test_the_runs_are_found_together(output):
    found = mlflow_runs(output, "tags.`aligntune.sweep` = 'tiny'")
    assert {run.info.run_name for run in found} == set(RUNS)


def test_the_best_alone_is_registered_and_is_the_candidate(output):
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    model = client.get_registered_model("tiny.policy")
    assert set(model.aliases) == {"candidate"}, "nothing is promoted"
    versions = {str(v.version): v for v in client.search_model_versions("name = 'tiny.policy'")}
    assert sorted(v.tags["aligntune.algorithm"] for v in versions.values()) == ["dpo", "sft"]
    candidate = versions[str(model.aliases["candidate"])]
    best = max(RUNS, key=lambda run: mean(output, run))
    artifact = os.path.basename(os.readlink(output / "runs" / best / "stages" / "dpo"))
    assert candidate.tags["aligntune.artifact"] == artifact
    assert candidate.tags["aligntune.decision"]


def test_again_nothing_is_run_and_the_candidate_is_the_best_of_the_sweep(write_config, output):
    config = write_config(output)
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    candidate = client.get_registered_model("tiny.policy").aliases["candidate"]
    (other,) = {"1", "2"} - {str(candidate)}
    client.set_registered_model_alias("tiny.policy", "candidate", other)
    before = len(mlflow_runs(output, ""))
    sweep_here(chosen([config], [SETTINGS[1], PRECOMPUTED], Choice(metric=SETTINGS[3])))
    assert client.get_registered_model("tiny.policy").aliases["candidate"] == candidate
    assert len(mlflow_runs(output, "")) == before


def test_a_run_that_fails_stops_no_other_and_is_named_at_the_end(
    write_config, output, tmp_path, capsys
):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(
        "".join(f'{{"prompt": "{n}", "chosen": "b", "rejected": "c"}}\n' for n in range(8))
    )
    bad.write_text('{"prompt": "a", "chosen": "b", "rejected": "b"}\n' * 4)
    overrides = [
        f"datasets.0.name={bad},{good}", "datasets.0.params={}", "logging.run_name=data",
        "train.max_steps=1",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"1 of 2 runs failed \(data-name-.*; the first: data: "):
        sweep_here(chosen([write_config(output)], overrides, Choice(metric="exact_match")))
    told = json.loads((output / "sweeps" / "data" / "sweep.json").read_text())
    assert [run["state"] for run in told["runs"]] == ["failed", "finished"]
    assert told["best"] == told["runs"][1]["name"]
    assert "failed" in capsys.readouterr().out


def test_optuna_measures_what_it_chose_and_goes_on(write_config, output):
    overrides = ["train.beta=log:0.01..1", "train.max_steps=1", "logging.run_name=study"]
    choice = Choice(trials=2, metric="preference_margin")
    sweep_here(chosen([write_config(output)], overrides, choice))
    sweep_here(chosen([write_config(output)], overrides, Choice(trials=3, metric=choice.metric)))
    told = json.loads((output / "sweeps" / "study" / "sweep.json").read_text())
    assert len(told["runs"]) == 3
    assert told["best"] == max(told["runs"], key=lambda run: run["mean"])["name"]

    import optuna

    file = output / "sweeps" / "study" / "optuna.db"
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{file}")
    assert study.direction.name == "MAXIMIZE"
    assert [trial.value for trial in study.trials] == [run["mean"] for run in told["runs"]]
