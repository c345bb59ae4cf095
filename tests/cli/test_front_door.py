"""The front door answers at once: CPU time against TRL's own, in one run."""

import os
import shutil
import subprocess
import sys

import pytest

from aligntune import shipped

RUNS = 5
HELP, VALIDATE = 0.25, 1.0
"""Shares of the CPU time of `trl --help`; most of `validate` is importing pydantic and click."""


def seconds(*command):
    """User and system time of one process, without its children's waiting."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


@pytest.mark.slow
def test_help_and_validate_cost_a_fraction_of_what_trl_takes_to_say_hello():
    trl = shutil.which("trl", path=os.path.dirname(sys.executable))
    ours = shutil.which("aligntune", path=os.path.dirname(sys.executable))
    config = str(shipped.FOLDER / "quickstart.yaml")
    commands = {
        "trl": (trl, "--help"),
        "help": (ours, "--help"),
        "validate": (ours, "validate", "--config", config),
    }
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(RUNS):  # interleaved: a busy moment spoils one round, not one command
        for name, command in commands.items():
            best[name] = min(best[name], seconds(*command))
    assert best["help"] <= HELP * best["trl"], best
    assert best["validate"] <= VALIDATE * best["trl"], best
