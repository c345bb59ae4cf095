"""Every trainer, broken off at random points, ends with the bytes of an undisturbed run.

FAULT_POINTS and FAULT_SEED play more points, or the same ones again; `make faults` plays many.
"""

import os
import random

import pytest
from faults import trials

pytestmark = pytest.mark.slow

POINTS = int(os.environ.get("FAULT_POINTS", "2"))
SEED = int(os.environ.get("FAULT_SEED", str(random.SystemRandom().randrange(10**6))))


@pytest.fixture(scope="module", params=trials.CONFIGS)
def bench(request, tiny_model, tmp_path_factory):
    with trials.bench(request.param, tiny_model, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
def rng(bench, request):
    """Replays with FAULT_SEED. A trial that failed leaves nothing to the next."""
    bench.clear()
    print(f"FAULT_SEED={SEED}")  # noqa: T201  # shown if the test fails
    return random.Random(f"{SEED} {request.node.name}")


def test_kill_9_costs_nothing(bench, rng):
    assert trials.kills(bench, POINTS, rng) > 0


def test_kill_9_at_the_end_loses_no_step(bench, rng):
    trials.late_kills(bench, max(POINTS // 4, 1), rng)


def test_sigterm_ends_as_resumable(bench, rng):
    trials.terms(bench, max(POINTS // 2, 1), rng)


def test_a_full_disk_is_named_and_loses_nothing(bench, rng):
    trials.full_disks(bench, POINTS if POINTS > 9 else 1, rng)


def test_a_damaged_checkpoint_is_found_and_the_one_before_used(bench, rng):
    trials.damages(bench, max(POINTS // 2, 1), rng)


def test_not_a_number_stops_before_the_update(bench, rng):
    trials.nans(bench, max(POINTS // 4, 1), rng)


def test_a_clock_that_jumps_changes_nothing(bench, rng):
    trials.clocks(bench, max(POINTS // 4, 1), rng)


def test_of_several_processes_one_trains(bench, rng):
    trials.races(bench, max(POINTS // 4, 1), rng)


@pytest.fixture
def chosen(bench):
    """Where few points are played, one trainer stands for all."""
    if POINTS < 10 and bench.stage.label != "sft":
        pytest.skip("`make faults` plays it with every trainer")


@pytest.mark.usefixtures("chosen")
def test_every_flipped_bit_is_found(bench, rng):
    trials.flips(bench, max(100, POINTS * 5), rng)


@pytest.mark.usefixtures("chosen")
def test_a_changed_setting_continues_nothing_and_is_named(bench, rng):
    trials.changes(bench, max(POINTS // 20, 1), rng)
