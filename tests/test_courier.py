"""A record that cannot be delivered whole holds up no other, is kept and is said."""

import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from manifests import manifest
from waits import until

from aligntune import courier
from aligntune.artifacts import WORK, commit, partial
from aligntune.cli_sync import sync as command
from aligntune.courier import Courier, delivering, sync
from aligntune.deliver import run_of
from aligntune.errors import ServiceError
from aligntune.journal import FILE
from aligntune.outbox import RUN, Outbox, continued, new_record, now
from aligntune.paths import EXPERIMENT
from aligntune.store import client_of
from aligntune.track import connect, experiment

STORE, LIMIT = "local", 2**20


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A database with tables and nothing else: making them takes seconds."""
    root = tmp_path_factory.mktemp("tables")
    connect(f"sqlite:///{root}/mlflow.db", root)
    return root / "mlflow.db"


@pytest.fixture
def outbox(tables, tmp_path):
    shutil.copyfile(tables, tmp_path / "mlflow.db")
    return Outbox(tmp_path)


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def client(uri, outbox):
    return client_of(uri)


@pytest.fixture
def runs(client, uri, tmp_path):
    """Name -> (status, metrics) of the runs that are not deleted."""

    def find():
        found = client.search_runs([experiment(client, uri, tmp_path)])
        return {run.info.run_name: (run.info.status, run.data.metrics) for run in found}

    return find


def pipeline(name, **fields):
    return new_record(role="pipeline", name=name, store=STORE, **fields)


class Files(BaseHTTPRequestHandler):
    """A store of files behind a proxy that takes no more than a megabyte, which is nginx's own."""

    def do_PUT(self):
        size = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(size)
        fits = size <= self.server.limit
        if fits:
            self.server.got.append(self.path.rpartition("/")[2])
        self.send_response(200 if fits else 413)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def files(client):
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        server.limit, server.got = LIMIT, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}/api/2.0/mlflow-artifacts/artifacts/x"
        elsewhere = client.get_experiment_by_name(EXPERIMENT).experiment_id
        client.rename_experiment(elsewhere, "other")
        client.create_experiment(EXPERIMENT, artifact_location=place)
        yield server
        server.shutdown()


def test_runs_get_into_the_experiment_of_their_own_environment_whoever_sends_them(
    outbox, uri, tmp_path, client, monkeypatch
):
    before = pipeline("before", status="FINISHED", ended=now())
    outbox.write(before)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
    stage = {"role": "stage", "name": "sft", "store": STORE, "status": "FINISHED", "ended": now()}
    outbox.write(pipeline("ours", id="f" * 32, status="FINISHED", ended=now()))
    outbox.write(new_record(parent="f" * 32, **stage))
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    assert sync(uri, tmp_path, STORE).sent == 3
    found = {}
    for name in ("aligntune", "team"):
        where = client.get_experiment_by_name(name)
        runs = client.search_runs([where.experiment_id])
        found[name] = {run.info.run_name: run for run in runs}
    assert {name: set(runs) for name, runs in found.items()} == {
        "aligntune": {"before"}, "team": {"ours", "sft"},
    }  # fmt: skip
    ours = found["team"]["ours"].info
    assert found["team"]["sft"].data.tags["mlflow.parentRunId"] == ours.run_id
    made = SimpleNamespace(manifest=SimpleNamespace(facts={"run": "f" * 32}))
    elsewhere = client.get_experiment_by_name("aligntune").experiment_id
    assert run_of(client, elsewhere, made) == ours.run_id  # a stage that is reused from there


def test_an_experiment_may_be_given_by_its_id(outbox, uri, tmp_path, client, monkeypatch, caplog):
    team = client.create_experiment("team", artifact_location=(tmp_path / "team").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", team)
    outbox.write(pipeline("ours", status="FINISHED", ended=now()))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "12345")
    outbox.write(pipeline("lost", status="FINISHED", ended=now()))
    assert sync(uri, tmp_path, STORE).sent == 2
    assert "no experiment with the id '12345' of MLFLOW_EXPERIMENT_ID" in caplog.text
    found = [team, client.get_experiment_by_name("aligntune").experiment_id]
    names = [[run.info.run_name for run in client.search_runs([where])] for where in found]
    assert names == [["ours"], ["lost"]]


def test_another_environment_is_another_run(outbox, tmp_path, monkeypatch):
    stopped = continued(outbox, tmp_path, pipeline("first", status="KILLED", ended=now()))
    outbox.write(stopped)
    assert continued(outbox, tmp_path, pipeline("first")).id == stopped.id
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
    assert continued(outbox, tmp_path, pipeline("first")).id != stopped.id


def test_a_file_that_is_too_large_for_a_proxy_holds_up_nothing(
    outbox, uri, tmp_path, files, runs, monkeypatch
):
    report, config = tmp_path / "report.html", tmp_path / "run.yaml"
    report.write_bytes(b"x" * 2 * LIMIT)
    config.write_text("algo: sft")
    first, second = pipeline("first"), pipeline("second")
    for record in (first, second):
        with outbox.owned(record) as ending:
            ending.files = [report, config] if record is first else []
            ending.metrics = {"nll": 1.0}
    found = sync(uri, tmp_path, STORE)
    assert runs() == dict.fromkeys(("first", "second"), ("FINISHED", {"nll": 1.0}))
    assert files.got == ["run.yaml"]
    (said,) = found.refused
    assert said.startswith("the report.html of first (413 Client Error")
    assert (found.sent, found.going, Courier(uri, tmp_path, STORE).round()) == (1, 0, 0)
    assert [record.id for record in outbox.records()] == [first.id]

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done = CliRunner().invoke(command, ["--output-dir", str(tmp_path)])
    assert isinstance(done.exception, ServiceError)
    assert "the report.html of first" in str(done.exception)
    files.limit = 3 * LIMIT
    assert sync(uri, tmp_path, STORE).refused == []
    assert "report.html" in files.got
    assert outbox.records() == []


def test_what_is_damaged_here_is_not_mlflow_being_away(outbox, uri, tmp_path, runs, caplog):
    record = new_record(role="stage", name="data", store=STORE, artifact="data-abc")
    later = pipeline("later")
    with outbox.owned(record):
        out = partial(tmp_path / "stages", "data", "abc")
        continued(outbox, out / WORK, record)
        (out / FILE).write_text('{"step": 1, "ti\x00e": 1}\n')
        pq.write_table(pa.table({"a": ["x"]}), out / "train.parquet")
        facts = {RUN: record.id, "digests": {"train": "d" * 64}, "sources": []}
        commit(out, manifest("data", "abc", facts=facts, metrics={"rows_train": 1}))
    with outbox.owned(later):
        pass
    rows = tmp_path / "stages" / "data-abc" / "train.parquet"
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-12] + b"\xff" * 4 + whole[-8:])
    found = sync(uri, tmp_path, STORE)
    assert {name: status for name, (status, _) in runs().items()} == {
        "data": "FINISHED",
        "later": "FINISHED",
    }
    metrics, inputs = found.refused
    assert metrics.startswith("the metrics of data (")
    assert inputs.startswith(f"the inputs of data ({rows} cannot be read")
    with delivering(uri, tmp_path, STORE, "none"):
        pass
    assert "does not have everything of 1 runs" in caplog.text


def test_a_failed_run_that_was_deleted_comes_again_with_its_next_attempt(
    outbox, uri, tmp_path, client, runs
):
    def attempt(error=None):
        with outbox.owned(continued(outbox, tmp_path / "runs", pipeline("nightly"))) as ending:
            ending.metrics = {"nll": 0.5}
            if error:
                raise error
        assert Courier(uri, tmp_path, STORE).round() == 0
        outbox.tidy()

    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match="x"):
        attempt(ValueError("x"))
    assert Courier(uri, tmp_path, STORE).round() == 0
    (run,) = client.search_runs([experiment(client, uri, tmp_path)])
    client.delete_run(run.info.run_id)
    attempt()
    assert runs() == {"nightly": ("FINISHED", {"nll": 0.5})}
    assert outbox.records() == []


def test_an_experiment_that_was_deleted_is_not_mlflow_being_away(
    outbox, uri, tmp_path, client, runs
):
    where, going = experiment(client, uri, tmp_path), Courier(uri, tmp_path, STORE)
    outbox.write(pipeline("first", status="FINISHED", ended=1))
    assert going.round() == 0
    client.delete_experiment(where)
    outbox.write(pipeline("second", status="FINISHED", ended=1))
    with pytest.raises(ServiceError, match=r"^MLflow refuses: .*state is deleted.*aligntune sync"):
        going.round()
    with pytest.raises(ServiceError, match=r"^MLflow's experiment .* has been deleted.*restore"):
        going.round()
    client.restore_experiment(where)
    assert going.round() == 0
    assert set(runs()) == {"first", "second"}


def threads():
    return [thread.name for thread in threading.enumerate()].count("mlflow-courier")


def test_a_run_does_not_wait_at_its_end_for_another_one(outbox, uri, tmp_path, monkeypatch, runs):
    monkeypatch.setattr(courier, "LAST_WAIT", 20.0)
    own, other = pipeline("own"), pipeline("other")
    with outbox.owned(other), delivering(uri, tmp_path, STORE, own.id), outbox.owned(own):
        pass
    assert runs()["own"][0] == "FINISHED"
    assert threads() == 0


def test_who_gave_up_at_the_end_does_not_go_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(courier, "SHORT_WAIT", 0.5)
    monkeypatch.setattr(courier, "LAST_WAIT", 0.5)
    record = pipeline("own")
    beside = delivering("http://127.0.0.1:9", tmp_path, STORE, record.id)
    with beside, Outbox(tmp_path).owned(record):
        pass
    assert "does not have everything of 1 runs" in caplog.text
    until(lambda: threads() == 0, "the end of the thread", 60)
