"""MLflow's store: a database of this machine is made once and whole, and answers are read whole."""

import shutil
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from aligntune.errors import ServiceError
from aligntune.paths import EXPERIMENT
from aligntune.store import client_of
from aligntune.track import connect


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder in which two roots made one database at the same time: to make one takes long."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        patch.chdir(folder)
        uri = "sqlite:///not/there/yet.db?timeout=30"
        both = list(pool.map(lambda name: connect(uri, folder / name), ["one", "other"]))
        found = {each.get_experiment_by_name(EXPERIMENT).experiment_id for each in both}
    assert len(found) == 1
    return folder / "not" / "there"


def test_a_database_may_be_anywhere_have_options_and_be_shared(shared):
    assert sorted(path.name for path in shared.iterdir()) == [".yet.lock", "yet.db"]


def test_a_database_that_somebody_else_made_meanwhile_stays(shared, tmp_path, monkeypatch):
    file = tmp_path / "mlflow.db"

    def overtaken(*_, **__):
        shutil.copyfile(shared / "yet.db", tmp_path / ".mlflow.db.new" / file.name)
        shutil.copyfile(shared / "yet.db", file)
        made.append(file.stat().st_ino)

    made = []
    monkeypatch.setattr(MlflowClient, "search_experiments", overtaken)
    assert connect(f"sqlite:///{file}", tmp_path).get_experiment_by_name(EXPERIMENT)
    assert made == [file.stat().st_ino]
    assert not (tmp_path / ".mlflow.db.new").exists()


def test_an_experiment_that_was_deleted_is_said_to_be_with_what_restores_it(shared, tmp_path):
    file = tmp_path / "mlflow.db"
    shutil.copyfile(shared / "yet.db", file)
    uri = f"sqlite:///{file}"
    client = connect(uri, tmp_path)
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    with pytest.raises(ServiceError, match=rf"`MLFLOW_TRACKING_URI={uri} mlflow .* restore .*-id "):
        connect(uri, tmp_path)


def test_a_database_in_memory_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert connect("sqlite:///:memory:", tmp_path / "out").get_experiment_by_name(EXPERIMENT)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_database_that_cannot_be_there_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match=r"cannot be .*/file/mlflow.db.*MLFLOW_TRACKING_URI"):
        connect(f"sqlite:///{tmp_path}/file/mlflow.db", tmp_path / "out")


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
@pytest.mark.parametrize(
    "rest",
    ["content-length: 2\r\n\r\n{}", "transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"],
)
def test_an_answer_that_broke_off_before_its_end_is_none(status, rest):
    answer = f"HTTP/1.1 {status}\r\nserver: uvicorn\r\n{rest}".encode()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = client_of(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def answered(size):
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer[:size])

        def ask(size):
            thread = threading.Thread(target=answered, args=(size,))
            thread.start()
            try:
                return client.search_runs(["0"])
            finally:
                thread.join()

        for size in range(answer.index(b"{}") + 2):
            with pytest.raises(MlflowException) as broken:
                ask(size)
            assert broken.value.error_code == "INTERNAL_ERROR", answer[:size]
        with nullcontext() if "200" in status else pytest.raises(MlflowException):
            assert ask(len(answer)) == []
