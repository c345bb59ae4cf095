"""Surroundings of every test: offline, silent, and one tiny model for all of them."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several test processes share the cores; tiny models gain nothing from threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
)

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from loopback_hub import LoopbackHub


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random two-layer Llama, its tokenizer and a chat template; read only."""
    from tiny import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's with tables and nothing else: making them takes seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("registry") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}", f"sqlite:///{file}").search_registered_models()
    return file


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[LoopbackHub]":
    """A hub that the client here talks to, with an empty cache and two seconds of patience."""
    from loopback_hub import LoopbackHub

    with LoopbackHub() as server:
        server.connect(monkeypatch, tmp_path)
        monkeypatch.setenv("ALIGNTUNE_HUB_BUDGET", "2")
        yield server
