"""The front door answers at once: CPU time against TRL's own, in one run."""

import os
import resource
import shutil
import subprocess
import sys

import pytest

from aligntune import shipped

RUNS = 25
HELP, VALIDATE = 0.25, 1.1
"""Shares of the CPU time of `trl --help`. `validate` takes 0.84 to 0.93 of it where it is quiet, of
which click, yaml and one pydantic model are 0.69."""


@pytest.fixture
def seconds(tmp_path):
    """User and system time of one process.

    All run from bytecode, as an installer leaves packages: an editable install in a place or with
    a setting that keeps none would be compiled anew each time, and TRL would not.
    """
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def seconds(*command):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)

    return seconds


@pytest.mark.slow
def test_help_and_validate_cost_a_fraction_of_what_trl_takes_to_say_hello(seconds):
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
