"""`aligntune data`: the data stages alone, and what they say."""

import json
import subprocess
import sys

import pytest


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


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "aligntune", *map(str, arguments)],
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
    found = json.loads(again.stdout)["data"]
    assert found["sources"][0]["dropped"]["invalid"] == 1
    assert sum(found["rows"].values()) == 59


def test_too_many_invalid_rows_stop_with_one_message(config):
    done = run("data", "-c", config, "--set", "cleaning.on_invalid=error")
    assert done.returncode == 65
    assert "1 of 60 rows cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
    assert "rejected.jsonl" in done.stderr
