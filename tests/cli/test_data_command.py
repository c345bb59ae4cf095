"""`aligntune data`: the data stages alone, and what they say."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from mlflow import MlflowClient


@pytest.fixture
def config(tmp_path, tiny_model):
    rows = [{"prompt": f"say red {n}", "completion": "red it is"} for n in range(60)]
    rows[7] = {"prompt": "broken", "completion": ""}
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    path = tmp_path / "run.yaml"
    path.write_text(
        "algo: sft\n"
        f"model: {{name_or_path: {tiny_model}, precision: fp32, max_seq_length: 64}}\n"
        f"datasets: [{{name: {tmp_path / 'rows.jsonl'}}}]\n"
        "cleaning: {max_invalid: 0.05}\n"
        f"logging: {{output_dir: {tmp_path / 'out'}, run_name: first}}\n"
    )
    return path


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "aligntune", *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_report_is_shown_and_the_artifact_is_the_runs_own(config, tmp_path):
    done = run("data", "-c", config)
    assert done.returncode == 0, done.stderr
    for said in ("60", "prompt_completion", "a turn is empty", "rows.jsonl:8", "report.html"):
        assert said in done.stdout + done.stderr
    kinds = {path.name.partition("-")[0] for path in (tmp_path / "out" / "stages").iterdir()}
    assert {kind for kind in kinds if not kind.startswith(".")} == {"tokenizer", "data"}
    planned = json.loads(run("plan", "-c", config, "--json").stdout)
    reused = {stage["label"] for stage in planned["stages"] if stage["reuse"]}
    assert reused == {"tokenizer", "data"}
    again = run("data", "-c", config, "--json")
    assert again.stderr.count("reused") == 2
    found = json.loads(again.stdout)["data"]
    assert found["sources"][0]["dropped"]["invalid"] == 1
    assert sum(found["rows"].values()) == 59


def test_too_many_invalid_rows_stop_with_one_message(config):
    done = run("data", "-c", config, "--set", "cleaning.on_invalid=error")
    assert done.returncode == 65
    assert "1 of 60 rows cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
    assert "rejected.jsonl" in done.stderr


def test_data_needs_no_weights_and_no_terminal_that_speaks_unicode(config, tmp_path, tiny_model):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    for weights in bare.glob("*.safetensors*"):
        weights.unlink()
    start = f"model.name_or_path={bare}"
    rows = [{"prompt": f"日本語{n}", "completion": "\u202e答え"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = run("data", "-c", config, "--set", start, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\u65e5\\u672c\\u8a9e" in done.stdout
    assert "###" in done.stdout
    none = run("data", "-c", config, "--set", start, "--samples", 0)
    assert "日本語" not in none.stdout


def test_a_run_in_mlflow_is_no_pipeline_run_and_knows_its_data(config, tmp_path):
    for _ in range(2):
        assert run("data", "-c", config).returncode == 0
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("aligntune").experiment_id])
    assert {entry.info.status for entry in found} == {"FINISHED"}
    roles = [entry.data.tags["aligntune.role"] for entry in found]
    assert (roles.count("data"), roles.count("pipeline"), roles.count("stage")) == (2, 0, 4)
    used = [entry.inputs.dataset_inputs for entry in found if entry.inputs.dataset_inputs]
    assert len(used) == 2
    digests = [{entry.dataset.digest for entry in inputs} for inputs in used]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 2
    assert not (tmp_path / "out" / "runs" / "first" / "plan.json").exists()
