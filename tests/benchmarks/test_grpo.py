"""A step of ours costs what TRL's own does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT, NOISE = 1.05, 0.15


@pytest.mark.slow
def test_a_step_of_grpo_costs_what_trls_does():
    script = Path(__file__).with_name("grpo.py")
    found = subprocess.run(
        [sys.executable, str(script), "--rounds", "4"], capture_output=True, text=True, check=True
    )
    measured = json.loads(found.stdout)
    assert measured["ratio"] <= LIMIT + NOISE
    assert measured["parts"]["generate"] > 0
    assert measured["parts"]["update"] > 0
