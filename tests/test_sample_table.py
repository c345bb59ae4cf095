"""Logged samples are a table in MLflow, while a stage runs and after it."""

import json

import pytest
from mlflow import MlflowClient

from aligntune.artifacts import WORK, partial
from aligntune.courier import Courier
from aligntune.outbox import Outbox, continued, new_record
from aligntune.track import sample_table

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
    uri = (tmp_path / "mlruns").as_uri()  # made at once, a database is not
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # where load_table looks
    courier, outbox = Courier(uri, tmp_path, "here"), Outbox(tmp_path)
    out = partial(tmp_path / "stages", "grpo", "1")
    fresh = new_record(role="stage", name="grpo", store="here", artifact="grpo-1")
    record = continued(outbox, out / WORK, fresh)

    def stage():
        with outbox.owned(record):
            (out / "samples.jsonl").write_bytes(lines(FIRST, SECOND) + b'{"step": 3, "pro')
            courier.round()
            # A resumed attempt takes back what came after its checkpoint.
            (out / "samples.jsonl").write_bytes(lines(FIRST))
            courier.round()
            (out / "samples.jsonl").write_bytes(lines(FIRST, SECOND))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stage()
    assert courier.round() == 0
    client, run_id = MlflowClient(uri), outbox.run_id(record.id)
    experiment = client.get_run(run_id).info.experiment_id
    table = client.load_table(experiment, "samples.json", run_ids=[run_id])
    assert table["step"].tolist() == [1, 2]
    assert table["completion"].tolist() == ["réd\u2028!", "red"]
    assert table["rewards/length"].tolist() == [0.5, 1.0]


def test_what_an_algorithm_says_has_a_column_as_json():
    spans = {"spans": [{"text": "1 + 2 = 3", "drop": 0.5}]}
    table = sample_table(lines(FIRST | spans, FIRST))
    assert table["columns"][-1] == "spans"
    assert [row[-1] for row in table["data"]] == ['[{"text": "1 + 2 = 3", "drop": 0.5}]', None]
