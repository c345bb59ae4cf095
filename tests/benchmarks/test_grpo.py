"""A step of ours is quicker than TRL's own, on a model so small that little of it is arithmetic."""

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.figures import read

from aligntune.train.packed import can_pack

TESTS = Path(__file__).parents[1]
LEAST, NOISE = 1.3, 0.15


@pytest.mark.slow
@pytest.mark.skipif(not can_pack(), reason="this CPU or torch has no bf16 products")
def test_a_step_of_grpo_is_quicker_than_trls():
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.grpo", "--small"],
        capture_output=True, text=True, check=True, cwd=TESTS,
    )  # fmt: skip
    found = read(made.stdout.splitlines()[-1])
    figure = next(each for each in found.figures if each.what == "GRPO step")
    assert figure.ratio >= LEAST * (1 - NOISE)
    (ours,) = (profile.after for profile in found.profiles if profile.what == "GRPO step")
    assert ours["generate"] > 0
    assert ours["update"] > 0
