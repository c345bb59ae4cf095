"""What is known of a run when its data is there, before anything is trained."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aligntune.config.load import load
from aligntune.errors import DataError
from aligntune.plan import plan
from aligntune.run import Context, Done
from aligntune.session import Session

TURN = [{"role": "user", "content": "a"}]
PAIR = {"prompt": TURN, "chosen": TURN, "rejected": TURN}


def finished(session, label, **columns):
    """A data stage with these held-out rows, as if it was done."""
    artifact = session.plan[label].stage.name
    folder = session.plan.paths.stages / artifact
    folder.mkdir(parents=True)
    if columns:
        pq.write_table(pa.Table.from_pylist([columns, PAIR]), folder / "heldout.parquet")
    session.add(Done(label, artifact, False, 1.0, "", None))


@pytest.fixture
def session(tmp_path, tiny_model):
    return session_of(tmp_path, tiny_model, {"metrics": ["preference_accuracy", "exact_match"]})


def session_of(tmp_path, tiny_model, evaluation, **more):
    config = {
        "algo": "dpo",
        "model": {"name_or_path": str(tiny_model)},
        "datasets": [{"name": "arithmetic:"}],
        "sft": {"datasets": [{"name": "arithmetic:", "params": {"count": 9}}]},
        "evaluation": evaluation,
        "logging": {"output_dir": str(tmp_path / "out")},
        **more,
    }
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(config))
    planned = plan(load([path]))
    (planned.paths.run / "stages").mkdir(parents=True)
    return Session(planned, Context(str(tmp_path / "out"), "", "run", None), "")


def test_a_metric_that_no_held_out_row_allows_is_named_when_the_data_is_there(session):
    finished(session, "sft-data")
    with pytest.raises(DataError, match="metric 'exact_match' needs rows with answer"):
        finished(session, "data", **PAIR, answer="")


def test_so_is_one_that_a_gate_is_about(tmp_path, tiny_model):
    gates = {"gates": [{"metric": "preference_accuracy"}, {"metric": "nll"}]}
    gated = session_of(tmp_path, tiny_model, {}, registry=gates)
    with pytest.raises(DataError, match=r"'nll' needs rows with messages.*registry\.gates"):
        finished(gated, "data", **PAIR, answer="7")


def test_one_row_that_allows_it_is_enough(session):
    finished(session, "data", **PAIR, answer="7")


def test_no_held_out_rows_are_named_then_too(session):
    with pytest.raises(DataError, match=r"there is no heldout\.parquet"):
        finished(session, "data")
