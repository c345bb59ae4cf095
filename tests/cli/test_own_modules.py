"""Rewards and data of one's own beside a config, as the installed command finds them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import aligntune

OWN = """
def good(samples): return [0.5 for _ in samples]
def rows(): return [{"prompt": "a", "answer": "b"}]
"""
CONFIG = {
    "algo": "grpo",
    "model": {"name_or_path": "owner/model"},
    "datasets": [{"name": "own_module:rows"}],
    "rewards": [{"reward_type": "own_module:good"}],
}


@pytest.fixture
def command(tmp_path):
    """Runs the command in a directory with `own_module.py`, as a script in another one, where pip
    puts it."""
    script = tmp_path / "bin" / "aligntune"
    script.parent.mkdir()
    script.write_text("from aligntune.cli import main\nmain()\n")
    here = tmp_path / "here"
    here.mkdir()
    (here / "own_module.py").write_text(OWN)
    (here / "run.yaml").write_text(json.dumps(CONFIG))
    root = str(Path(aligntune.__file__).parents[1])

    def run(*arguments):
        return subprocess.run(
            [sys.executable, script, *arguments],
            cwd=here, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True,
        )  # fmt: skip

    return run


def test_what_is_beside_the_config_is_found(command):
    done = command("validate", "--config", "run.yaml")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_beside_the_config_hides_no_package(command, tmp_path):
    (tmp_path / "here" / "pydantic.py").write_text("raise SystemExit('hidden')")
    assert command("validate", "--config", "run.yaml").stderr == ""
