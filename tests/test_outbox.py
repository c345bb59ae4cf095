"""What MLflow has to be told arrives once, whatever is lost, killed or away in between."""

import json
import shutil
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from unittest.mock import Mock

import pytest
from manifests import manifest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from waits import until

from aligntune.artifacts import WORK, commit, partial
from aligntune.courier import Courier, sync
from aligntune.errors import Interrupted, ServiceError
from aligntune.journal import FILE, Journal, read
from aligntune.machine import Sampler
from aligntune.outbox import RUN, SYSTEM, Outbox, continued, new_record
from aligntune.registry import run_that_made
from aligntune.track import connect, experiment

STORE, PARENT = "here", "parent"


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One database for all: to make one takes longer than all else."""
    root = tmp_path_factory.mktemp("store")
    connect(f"sqlite:///{root / 'mlflow.db'}", root)
    return f"sqlite:///{root / 'mlflow.db'}"


@pytest.fixture
def client(uri):
    return MlflowClient(uri)


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path)


@pytest.fixture
def courier(uri, tmp_path):
    return Courier(uri, tmp_path, STORE)


@pytest.fixture
def found(client, uri, tmp_path):
    """The MLflow runs that carry a record's id."""

    def search(record):
        where = experiment(client, uri, tmp_path)
        return client.search_runs([where], f"tags.`aligntune.id` = '{record.id}'")

    return search


def stage(**changes):
    fields = {"role": "stage", "name": "sft", "store": STORE, "artifact": "sft-abc"}
    said = {"params": {"train.beta": 0.1}, "tags": {"made.by": "me"}}
    return new_record(**fields | said | changes)


def begun(outbox, record, steps=3):
    """A stage's scratch, as it is while the stage runs."""
    out = partial(outbox.root / "stages", "sft", "abc")
    assert continued(outbox, out / WORK, record).id == record.id
    journal = Journal(out / FILE)
    for step in range(1, steps + 1):
        journal.write(step, {"train/loss": 1 / step, "eval/acc@1": 0.5})
    journal.close()
    return out


def committed(out, record):
    facts = {RUN: record.id, "choice": {"padding_free": False, "reasons": {}}}
    return commit(out, manifest("sft", "abc", metrics={"final_loss": 0.25}, facts=facts))


def points(client, run, name):
    history = client.get_metric_history(run.info.run_id, name)
    return [(point.step, point.value) for point in history]


def test_a_stage_arrives_whole(outbox, courier, client, found):
    parent = new_record(role="pipeline", name="first", store=STORE)
    with outbox.owned(parent):
        record = stage(parent=parent.id)
        with outbox.owned(record):
            out = begun(outbox, record)
            assert courier.round() == 2
            (run,) = found(record)
            assert run.info.status == "RUNNING"
            assert points(client, run, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
            history = client.get_metric_history(run.info.run_id, "train/loss")
            assert [point.timestamp for point in history] == [row.time for row in read(out / FILE)]
            (out / "notes.txt").write_text("small")
            committed(out, record)
        assert courier.round() == 1
    assert courier.round() == 0
    (run,), (above,) = found(record), found(parent)
    assert run.data.tags["mlflow.parentRunId"] == above.info.run_id
    assert (run.info.status, above.info.status) == ("FINISHED", "FINISHED")
    assert run.data.params == {"train.beta": "0.1", "chosen.padding_free": "false"}
    assert (run.data.tags["made.by"], run.data.tags["aligntune.artifact"]) == ("me", "sft-abc")
    assert run.data.metrics["final_loss"] == 0.25
    assert run.data.metrics["eval/acc_1"] == 0.5
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {"manifest.json", "metrics.jsonl", "notes.txt"}
    outbox.tidy()
    assert outbox.records() == []


def test_what_a_kill_left_of_a_record_goes_and_one_that_begins_stays(outbox):
    (outbox.place("killed")).mkdir(parents=True)
    (outbox.place("killed") / "sent.json").write_text("{}")
    with outbox.held("begins"):
        outbox.tidy()
        assert [path.name for path in outbox.folder.iterdir()] == ["begins"]
    outbox.tidy()
    assert not list(outbox.folder.iterdir())


@pytest.mark.parametrize("remembered", [True, False])
def test_what_broke_off_stays_while_a_later_attempt_may_go_on_with_it(outbox, courier, remembered):
    record = stage()
    folder = begun(outbox, record)
    with suppress(KeyboardInterrupt), outbox.owned(record):
        raise KeyboardInterrupt
    if not remembered:  # another process took the stage over, or it was thrown away
        shutil.rmtree(folder)
    assert courier.round() == 0
    outbox.tidy()
    assert [kept.id for kept in outbox.records()] == [record.id] * remembered


def test_the_run_that_made_an_artifact_is_found_though_it_was_not_there_at_the_commit(
    outbox, courier, uri, tmp_path, found, caplog, monkeypatch
):
    record = stage()
    with outbox.owned(record):
        made = committed(begun(outbox, record), record)
    assert run_that_made(made, uri, tmp_path) is None, "MLflow has not got it yet"
    courier.round()
    assert run_that_made(made, uri, tmp_path) == found(record)[0].info.run_id
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert run_that_made(made, "http://127.0.0.1:9", tmp_path) is None
    assert "the MLflow run that made sft-abc is not known" in caplog.text


def test_what_was_sent_but_not_noted_is_there_once(outbox, courier, client, found):
    record = stage()
    with outbox.owned(record):
        committed(begun(outbox, record), record)
    for _ in range(2):
        assert courier.round() == 0
        (outbox.place(record.id) / "sent.json").unlink()
    assert courier.round() == 0
    (run,) = found(record)
    assert [step for step, _ in points(client, run, "train/loss")] == [1, 2, 3]
    assert points(client, run, "final_loss") == [(0, 0.25)]


def test_a_run_that_was_made_twice_because_an_answer_was_lost_is_one_again(
    outbox, courier, client, uri, found
):
    record = stage()
    outbox.write(record)
    for _ in range(2):
        client.create_run(experiment(client, uri, outbox.root), tags={"aligntune.id": record.id})
    courier.round()
    assert len(found(record)) == 1


def test_a_killed_run_is_closed_as_killed_and_a_living_one_is_left_alone(outbox, courier, found):
    dead, living = stage(), stage(name="dpo", artifact="dpo-abc")
    outbox.write(dead)  # as its process, which is gone, left it
    with outbox.owned(living):
        courier.round()
        assert found(dead)[0].info.status == "KILLED"
        assert found(living)[0].info.status == "RUNNING"


def test_killed_between_the_commit_and_the_end_of_the_run_is_finished(outbox, courier, found):
    record = stage()
    outbox.write(record)
    committed(begun(outbox, record), record)
    assert courier.round() == 0
    (run,) = found(record)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final_loss"] == 0.25


def test_killed_when_the_artifact_had_not_got_its_name_is_finished(
    outbox, courier, found, monkeypatch
):
    record = stage()
    outbox.write(record)
    out = begun(outbox, record)
    with monkeypatch.context() as killed:
        killed.setattr(Path, "rename", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            committed(out, record)
    assert courier.round() == 0
    (run,) = found(record)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final_loss"] == 0.25
    assert run.data.metrics["train/loss"] == 1 / 3


def test_a_resumed_stage_goes_on_in_its_run(outbox, courier, client, found):
    record = stage()
    out = begun(outbox, record, steps=2)
    with pytest.raises(Interrupted), outbox.owned(record):
        raise Interrupted("stopped")
    assert courier.round() == 0
    assert found(record)[0].info.status == "KILLED"
    again = continued(outbox, out / WORK, stage())
    assert again.id == record.id
    with outbox.owned(again):
        begun(outbox, again, steps=4)
        courier.round()
        assert found(record)[0].info.status == "RUNNING"
        committed(out, again)
    assert courier.round() == 0
    (run,) = found(record)
    assert run.info.status == "FINISHED"
    assert [step for step, _ in points(client, run, "train/loss")] == [1, 2, 3, 4]
    assert "manifest.json" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_an_end_that_did_not_arrive_whole_is_not_the_end_of_the_next_attempt(
    outbox, courier, found, monkeypatch
):
    record = stage()
    out = begun(outbox, record)
    with pytest.raises(Interrupted), outbox.owned(record):
        raise Interrupted("stopped")

    def cut(*_):
        raise OSError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", cut)
        with pytest.raises(ServiceError, match="cut"):
            courier.round()
    with outbox.owned(continued(outbox, out / WORK, stage())):
        committed(out, record)
    assert courier.round() == 0
    (run,) = found(record)
    assert (run.info.status, run.data.metrics["final_loss"]) == ("FINISHED", 0.25)
    assert run.data.params["chosen.padding_free"] == "false"


def test_what_is_not_the_same_run_is_a_new_one(outbox):
    record = stage()
    outbox.write(record)
    out = begun(outbox, record)
    other = stage(params={"train.beta": 0.2})
    assert continued(outbox, out / WORK, other).id == other.id
    assert outbox.journal(record) is None, "its rows would go to the wrong run"


def test_away_is_said_once_nothing_is_lost_and_a_stage_does_not_wait(
    outbox, uri, tmp_path, client, found, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Courier("http://127.0.0.1:9", tmp_path, STORE)
    record = stage()
    with outbox.owned(record):
        out = begun(outbox, record)
        with pytest.raises(ServiceError, match="aligntune sync"):
            away.round()
        asked = time.monotonic()
        assert outbox.run_id(record.id, patience=20) is None
        assert time.monotonic() - asked < 10
        committed(out, record)
    outbox.tidy()  # as a run does at its end
    found_later = sync(uri, tmp_path, STORE)
    assert (found_later.sent, found_later.going, found_later.elsewhere) == (1, 0, {})
    assert [step for step, _ in points(client, found(record)[0], "train/loss")] == [1, 2, 3]


def test_runs_for_another_store_are_counted_not_sent(outbox, uri, tmp_path, found):
    record = stage(store="there", status="FINISHED", ended=1)
    outbox.write(record)
    assert sync(uri, tmp_path, STORE).elsewhere == {"there": 1}
    assert found(record) == []


def test_what_mlflow_refuses_does_not_hold_up_the_rest(outbox, courier, client, found, caplog):
    gone, other = stage(), stage(name="dpo", artifact="dpo-abc")
    for record in (gone, other):
        outbox.write(record)
    with outbox.held(gone.id), outbox.held(other.id):
        courier.round()
    client.delete_run(found(gone)[0].info.run_id)
    ended = {"status": "FINISHED", "ended": 2}
    for record in (gone, other):
        outbox.write(outbox.record(record.id).model_copy(update=ended))
    assert courier.round() == 0
    assert found(other)[0].info.status == "FINISHED"
    assert "MLflow did not take the" in caplog.text


@pytest.mark.parametrize(("code", "away"), [("3o7r", True), ("rvf5", True), ("9h9h", False)])
def test_a_database_that_fails_is_away_and_refuses_only_data(
    code, away, outbox, courier, client, found, monkeypatch
):
    record = stage()
    outbox.write(record)
    with outbox.held(record.id):
        courier.round()
        begun(outbox, record)

        def failing(*_, **__):  # as MLflow's server says it
            monkeypatch.undo()
            raise MlflowException(f"(Background: https://sqlalche.me/e/20/{code})", BAD_REQUEST)

        monkeypatch.setattr(MlflowClient, "log_batch", failing)
        with pytest.raises(ServiceError) if away else nullcontext():
            courier.round()
        courier.round()
    assert bool(points(client, found(record)[0], "train/loss")) == away


def test_the_machine_is_measured_while_a_stage_runs(outbox, courier, client, found, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    record, other = stage(parent=PARENT), stage(parent="of another command")
    with outbox.owned(record), outbox.owned(other):
        for _ in range(2):  # as a stage that goes on in another process
            before = measured(outbox, record)
            sampler = Sampler(outbox, PARENT)
            until(lambda before=before: measured(outbox, record) > before + 1, "samples", 20)
            sampler.stop()
        assert measured(outbox, other) == 0, "its own command measures it"
    courier.round()
    (run,) = found(record)
    name = "system/cpu_utilization_percentage"
    steps = [step for step, _ in points(client, run, name)]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 4
    assert "system/system_memory_usage_megabytes" in run.data.metrics


def test_nothing_is_measured_where_mlflows_own_switch_is_off(outbox, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    record = stage(parent=PARENT)
    with outbox.owned(record):
        sampler = Sampler(outbox, PARENT)
        time.sleep(0.3)
        sampler.stop()
        assert measured(outbox, record) == 0


def measured(outbox, record):
    path = outbox.place(record.id) / SYSTEM
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_the_files_of_a_run_are_those_of_its_own_end(outbox, courier, client, found, tmp_path):
    record = new_record(role="pipeline", name="first", store=STORE)
    report = tmp_path / "report.html"
    report.write_text("the first")
    with outbox.owned(record) as ending:
        ending.files = [report]
        ending.metrics = {"dpo/exact_match": 0.5}
    report.write_text("the next one of the same name")
    courier.round()
    (run,) = found(record)
    report.unlink()
    local = client.download_artifacts(run.info.run_id, "report.html", str(tmp_path))
    assert Path(local).read_text() == "the first"
    assert run.data.metrics == {"dpo/exact_match": 0.5}


def test_sync_on_the_command_line(outbox, tmp_path, monkeypatch, capsys):
    from aligntune import cli, courier

    monkeypatch.setattr(courier, "PATIENCE", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("sys.argv", ["aligntune", "sync", "--output-dir", str(tmp_path), "--json"])
    cli.main()
    assert json.loads(capsys.readouterr().out)["sent"] == 0
    outbox.write(stage(store="http://127.0.0.1:9", status="FAILED", ended=1))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == ServiceError.exit_code
    assert "MLflow does not answer" in capsys.readouterr().err
