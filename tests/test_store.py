"""A store that is away, lost its files or is not there fails at once, as an error of ours."""

import socket
import threading

import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from aligntune.errors import ConfigError, ServiceError
from aligntune.paths import database_file
from aligntune.recorded import recorded_run
from aligntune.registered import paper, registered
from aligntune.store import asking, status_of

NAME = "models:/toy@champion"


def test_a_server_that_hangs_up_is_asked_once(monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                calls.append(connection)
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for ask, what in ((registered, NAME), (recorded_run, "0" * 32)):
            calls.clear()
            with pytest.raises(ServiceError, match="MLflow failed"):
                ask(what, uri)
            assert len(calls) == 1
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("options", ["", "?timeout=30"])
def test_to_ask_a_database_that_is_not_there_does_not_make_it(options, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db{options}"
    assert database_file(uri) == tmp_path / "mlflow.db"
    with pytest.raises(ConfigError, match=rf"not in the model registry.*no {tmp_path}/mlflow.db"):
        registered(NAME, uri)
    with pytest.raises(ConfigError, match="MLflow has no run"):
        recorded_run("0" * 32, uri)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_s3(monkeypatch):
    pytest.importorskip("boto3", reason="the client of S3 is not installed")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1", "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def test_files_that_cannot_be_had_or_brought_are_a_server_that_is_away(no_s3, tmp_path):
    place = f"s3://bucket/{tmp_path.name}"
    with pytest.raises(ServiceError, match=r"connect to the endpoint.*run the same command again"):
        paper(place, "SHA256SUMS", "http://127.0.0.1:9")
    (tmp_path / "a").touch()
    with pytest.raises(ServiceError, match="later"), asking("later"):
        get_artifact_repository(place).log_artifact(str(tmp_path / "a"))


def test_an_error_of_ours_or_of_python_stays_what_it_is():
    for kind in (ConfigError, KeyError, FileNotFoundError):
        with pytest.raises(kind), asking("later", "it is not there"):
            raise kind("x")


def test_the_status_that_boto3_hides_in_another_error_is_found():
    errors = pytest.importorskip("botocore.exceptions", reason="the client of S3")
    hiding = pytest.importorskip("boto3.exceptions", reason="the client of S3").Boto3Error("x")
    answer = {"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
    hiding.__context__ = errors.ClientError(answer, "GetObject")
    with pytest.raises(ConfigError, match="gone"), asking("later", "gone"):
        raise hiding
    assert status_of(ValueError("x")) is None
