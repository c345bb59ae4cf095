"""Logged samples are a table in MLflow, while a stage runs and after it."""

import json

import pytest

from aligntune import track
from aligntune.track import Tracker, forwarding, sample_table, stage_run

FIRST = {"step": 1, "prompt": "say red", "completion": "réd\u2028!", "rewards": {"length": 0.5}}
SECOND = {"step": 2, "prompt": "say red", "completion": "red",
          "rewards": {"length": 1.0, "math": None}}  # fmt: skip


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def test_a_row_per_answer_and_a_column_per_reward():
    assert sample_table(lines(FIRST, SECOND)) == {
        "columns": ["step", "prompt", "completion", "rewards/length", "rewards/math"],
        "data": [
            [1, "say red", "réd\u2028!", 0.5, None],
            [2, "say red", "red", 1.0, None],
        ],
    }
    plain = {"step": 1, "prompt": "x", "completion": "y"}
    assert sample_table(lines(plain))["columns"] == ["step", "prompt", "completion"]


def test_mlflow_shows_what_was_sampled_also_of_a_stage_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(track, "_SEND_EVERY", 0.01)
    uri = (tmp_path / "mlruns").as_uri()  # made at once, a database is not
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = Tracker(uri, tmp_path, None)
    work = tmp_path / "work"
    work.mkdir()
    file, found = tmp_path / "samples.jsonl", {}

    def stage():
        with stage_run(tracker, "grpo", "grpo-1", {}, work) as run_id:
            found["run"] = run_id
            with forwarding(tracker, run_id, tmp_path, work):
                file.write_bytes(lines(FIRST, SECOND) + b'{"step": 3, "pro')
                # A resumed attempt takes back what came after its checkpoint.
                file.write_bytes(lines(FIRST))
                file.write_bytes(lines(FIRST, SECOND))
                raise RuntimeError

    with pytest.raises(RuntimeError):
        stage()
    client = tracker.client()
    experiment = client.get_run(found["run"]).info.experiment_id
    table = client.load_table(experiment, "samples.json", run_ids=[found["run"]])
    assert table["step"].tolist() == [1, 2]
    assert table["completion"].tolist() == ["réd\u2028!", "red"]
    assert table["rewards/length"].tolist() == [0.5, 1.0]
