"""Many short runs with faults of every kind leave no process, lock, temporary file or growing disk.

FAULT_POINTS and FAULT_SEED play more runs, or the same ones again; `make faults` plays many.
"""

import os
import random

import pytest
from faults.bench import Server
from faults.soak import CONFIG, Soak, soak
from mlflow import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(14_400)]

RUNS = int(os.environ.get("FAULT_POINTS", "2"))
SEED = int(os.environ.get("FAULT_SEED", str(random.SystemRandom().randrange(10**6))))


@pytest.fixture
def made(tiny_model, tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    database = f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}"
    MlflowClient(database, database).search_registered_models()
    config = tmp_path / "run.yaml"
    text = CONFIG.replace("MODEL", str(tiny_model)).replace("OUTPUT", str(tmp_path / "out"))
    config.write_text(text)
    with Server(tmp_path, TMPDIR=str(tmp_path / "tmp")) as server:
        made = Soak(server, tmp_path, config)
        made.measure()
        yield made


def test_nothing_is_left_of_runs_that_broke_off(made):
    print(f"FAULT_SEED={SEED}")  # noqa: T201  # shown if the test fails
    try:
        soak(made, RUNS, random.Random(SEED))
    finally:
        print(made.tried)  # noqa: T201
