"""Real stages in processes of their own need what was said, within 20 %."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_three_small_models_need_what_was_said():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--small"],
        capture_output=True, text=True, check=False, timeout=1500, cwd=TESTS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert [figure["what"].split(",")[1].split(":")[0] for figure in figures] == [
        " SFT", " DPO", " GRPO",
    ]  # fmt: skip
    for figure in figures:
        assert figure["ours"] <= 0.2 * figure["peer"], figure["note"]
