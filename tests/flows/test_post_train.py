"""The pipeline as a flow: what Prefect shows, what is retried, and that stopping is clean."""

import pytest

from aligntune.artifacts import find
from aligntune.config.load import load
from aligntune.errors import DataError, ServiceError
from aligntune.plan import plan

from .conftest import BEFORE_SFT, STAGES, trainers

pytestmark = pytest.mark.timeout(900)


def test_sigterm_in_mid_training_ends_the_flow_as_resumable_and_leaves_no_process(interrupted):
    process, said, child, _ = interrupted
    assert process.returncode == 75, said
    assert "ERROR 75" in said
    assert child not in trainers(process.pid)
    assert "Traceback" not in said


def test_an_interrupted_flow_says_so_in_prefect(interrupted, prefect):
    *_, flow_run = interrupted
    assert (flow_run.state.type.value, flow_run.state.name) == ("CANCELLED", "Interrupted")
    assert "same command" in flow_run.state.message
    states = {label: task.state.name for label, task in prefect.tasks(flow_run).items()}
    assert states == dict.fromkeys(BEFORE_SFT, "Completed") | {"sft": "Interrupted"}


def test_the_same_command_again_finishes_what_was_interrupted(finished, prefect, output, config):
    assert (finished.state.type.value, finished.name) == ("COMPLETED", "Tiny.run_1")
    states = {label: task.state.name for label, task in prefect.tasks(finished).items()}
    assert states == {label: "Cached" if label in BEFORE_SFT else "Completed" for label in STAGES}
    assert (output / "runs" / "Tiny.run_1" / "report.html").exists()
    for entry in plan(load([config])).stages:
        assert find(output / "stages", entry.stage.kind, entry.stage.key, verify=True)


def test_training_went_on_from_the_checkpoint(finished, prefect):
    said = "\n".join(prefect.logs(prefect.tasks(finished)["sft"]))
    assert "continu" in said or "resum" in said, said


def test_a_task_run_is_named_for_its_stage_and_key_and_waits_for_its_inputs(
    finished, prefect, config
):
    tasks = prefect.tasks(finished)
    planned = plan(load([config])).stages
    assert {task.name for task in tasks.values()} == {
        f"{entry.stage.label} [{entry.stage.key}]" for entry in planned
    }
    labels = {task.id: label for label, task in tasks.items()}
    waited = {labels[given.id] for given in tasks["sft"].task_inputs["wait_for"]}
    assert waited == {"model", "data"}


def test_parameters_are_paths_and_strings(finished, config):
    assert finished.parameters == {
        "configs": [str(config)],
        "overrides": [],
        "command": f"aligntune flow --config {config}",
    }


def test_a_stage_that_talks_to_a_network_is_tried_again_and_no_other(finished, prefect, hub):
    runs = {label: task.run_count for label, task in prefect.tasks(finished).items()}
    assert runs == {label: 3 if label == "push" else 1 for label in STAGES}
    assert "model.safetensors" in hub.files("model", "me/tiny")


def test_what_a_training_process_prints_is_in_its_task_log(finished, prefect):
    said = prefect.logs(prefect.tasks(finished)["sft"])
    assert any(line.startswith("sft ...") for line in said), said


def test_each_stage_has_an_artifact_with_its_metrics(finished, prefect):
    tasks = prefect.tasks(finished)
    found = {made.key: made.data for made in prefect.artifacts() if made.flow_run_id == finished.id}
    assert {f"tiny-run-1-{label}" for label in STAGES} <= set(found)
    assert "| final_loss |" in found["tiny-run-1-sft"]
    assert "MLflow run: `" in found["tiny-run-1-sft"]
    assert "## Sample 1" in found["tiny-run-1-evaluate-sft"]
    assert "Sample" not in found["tiny-run-1-sft"]
    assert len(tasks) == len(STAGES)
    assert [row["stage"] for row in _table(found["tiny-run-1-stages"])] == list(STAGES)


def _table(data):
    import json

    return json.loads(data)


def test_mlflows_run_leads_to_prefects(finished, output):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    where = [client.get_experiment_by_name("aligntune").experiment_id]
    runs = client.search_runs(where, f"tags.`aligntune.flow_run_id` = '{finished.id}'")
    assert [run.data.tags["aligntune.role"] for run in runs] == ["pipeline"]


def test_what_the_training_process_said_is_in_the_runs_folder(finished, output):
    said = (output / "runs" / "Tiny.run_1" / "logs" / "sft.txt").read_text()
    assert said.count("--- ") == 2, "an attempt that was interrupted, and its successor"
    assert "continuing from checkpoint" in said


def test_a_finished_pipeline_is_all_cached_the_next_time(finished, prefect, hub, config, capsys):
    from flows.post_train import run

    requests = hub.count("POST", "/commit/")
    run([config], [], "again")
    again = prefect.latest()
    assert again.id != finished.id
    tasks = prefect.tasks(again)
    assert {label: task.state.name for label, task in tasks.items()} == dict.fromkeys(
        STAGES, "Cached"
    )
    assert "everything was reused" in capsys.readouterr().out
    assert hub.count("POST", "/commit/") == requests


def test_an_error_of_ours_comes_out_as_it_was_and_the_flow_run_is_failed(
    prefect, hub, tiny_model, tmp_path
):
    from flows.post_train import run

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"unrelated": 1}\n')
    config = tmp_path / "bad.yaml"
    config.write_text(
        f"algo: sft\nmodel: {{name_or_path: {tiny_model}}}\n"
        f"datasets: [{{name: {rows}}}]\nlogging: {{output_dir: {tmp_path}/out}}\n"
    )
    with pytest.raises(DataError):
        run([config], [], "bad")
    failed = prefect.latest()
    assert failed.state.type.value == "FAILED"
    assert "DataError" in failed.state.message
    assert prefect.tasks(failed)["data"].run_count == 1


def test_a_configured_server_that_is_away_is_an_error_of_ours(
    environment, hub, config, monkeypatch, capsys
):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import post_train

    monkeypatch.setattr(post_train, "LOOKS", (0.1, 0.1))
    with (
        temporary_settings({PREFECT_API_URL: "http://me:secret@127.0.0.1:9/api"}),
        pytest.raises(ServiceError, match=r"127\.0\.0\.1:9/api does not answer") as caught,
    ):
        post_train.run([config], [], "away")
    assert "secret" not in capsys.readouterr().out + str(caught.value)
