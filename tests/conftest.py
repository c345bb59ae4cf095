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

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random two-layer Llama, its tokenizer and a chat template; read only."""
    from tiny import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
