"""Which servers a run talks to, as its keys and its messages may say it."""

from pathlib import Path

import pytest

from aligntune.paths import tracking_identity, tracking_uri


def test_the_default_store_is_local_wherever_the_output_is(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_identity() == "local"
    assert tracking_uri(Path("/runs")) == "sqlite:////runs/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@host:5000/x", "https://host:5000/x"),
        ("http://host:5000", "http://host:5000"),
        ("postgresql://me:sec@ret@db/mlflow", "postgresql://db/mlflow"),
    ],
)
def test_what_identifies_a_server_has_no_password(monkeypatch, uri, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_uri(Path("/runs")) == uri
    assert tracking_identity() == shown
