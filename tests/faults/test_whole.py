"""A run that is killed or told to stop anywhere, in registration and promotion too, and is started
again leaves what one leaves that nobody disturbs.

FAULT_POINTS and FAULT_SEED play more points, or the same ones again; `make faults` plays many.
"""

import os
import random
import signal

import pytest
from faults.bench import Server
from faults.whole import Whole, disturbances
from mlflow import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

POINTS = max(int(os.environ.get("FAULT_POINTS", "2")) // 2, 2)
SEED = int(os.environ.get("FAULT_SEED", str(random.SystemRandom().randrange(10**6))))


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tables = folder / "mlflow.db"
    MlflowClient(f"sqlite:///{tables}", f"sqlite:///{tables}").search_registered_models()
    with Server(folder) as server:
        made = Whole(server, tiny_model, folder, tables)
        made.measure()
        yield made


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_broken_off_leaves_what_an_undisturbed_one_leaves(run, number):
    print(f"FAULT_SEED={SEED}")  # noqa: T201  # shown if the test fails
    points = POINTS if number == signal.SIGKILL else POINTS // 2
    disturbances(run, points, random.Random(f"{SEED} {number}"), number)


def test_the_same_run_twice_makes_the_same_bytes(run):
    run.fresh(run.tables)
    again = run.play()
    assert again.code == 0, run.log.read_text()[-3000:]
    differ = sorted(name for name, _ in set(run.files.items()) ^ set(run.expected["files"].items()))
    assert not differ, "the second time they are others"
