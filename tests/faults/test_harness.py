"""Each trial notices when the precaution that it is about is taken away."""

import random

import pytest
from faults import trials

pytestmark = pytest.mark.slow

SABOTAGE = (
    ("unverified", trials.damages),
    ("unverified", trials.changes),
    ("by time", trials.clocks),
    ("from 0", trials.terms),
    ("one more step", trials.kills),
    ("unguarded", trials.nans),
    ("unlocked", trials.races),
    ("unnamed", trials.full_disks),
    ("deaf", trials.terms),
    ("half written", trials.late_kills),
    ("too early", trials.late_kills),
)


@pytest.fixture(scope="module")
def bench(tiny_model, tmp_path_factory):
    with trials.bench("sft", tiny_model, tmp_path_factory.mktemp("sabotage")) as made:
        yield made


@pytest.mark.parametrize(("name", "trial"), SABOTAGE)
def test_a_trial_fails_without_the_precaution_that_it_is_about(bench, name, trial):
    bench.server.sabotage = name
    try:
        with pytest.raises(AssertionError):
            trial(bench, 25, random.Random(name))
    finally:
        bench.server.sabotage = None
        bench.clear()
