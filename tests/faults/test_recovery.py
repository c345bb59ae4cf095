"""A training that is killed every five minutes gets on: how soon after a kill, and how much of the
time counts."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from faults.bench import BASE, CONFIGS

from aligntune.journal import read

MANY = int(os.environ.get("FAULT_POINTS", "2")) > 9
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not MANY, reason="takes twenty minutes; `make faults` plays it"),
]

EVERY = 300
"""Seconds from a kill to the next."""
KILLS = 3
SOON = 30
"""Seconds to the first new step: the process starts and loads everything, but the model is tiny."""
EFFECTIVE = 0.9
"""Of the time, in which steps are made that stay."""


@dataclass(frozen=True)
class Recovery:
    """What one kill cost, in seconds."""

    until: float
    """From the kill to the first new step."""
    lost: float
    """From the last step that the newest checkpoint has to the kill."""


def test_most_of_the_time_counts(tiny_model, tmp_path):
    output, config = tmp_path / "out", tmp_path / "run.yaml"
    text = CONFIGS["sft"].replace("max_steps: 7", "max_steps: 1000000")
    text += BASE.replace("MODEL", str(tiny_model)).replace("OUTPUT", str(output))
    config.write_text(text.replace("save_steps: 2, eval_steps: 3", "save_steps: 500"))
    rng = random.Random(0)
    found = []
    running = start(config, tmp_path)
    began = killed = first_new_step(output, running)
    for _ in range(KILLS):
        # Earlier or later, or every kill would meet the same moment between two checkpoints.
        time.sleep(EVERY - (time.time() - killed) + rng.uniform(-10, 10))
        os.killpg(running.pid, signal.SIGKILL)
        killed = time.time()
        running.wait()
        lost = killed - last_saved(output)
        running = start(config, tmp_path)
        found.append(Recovery(first_new_step(output, running) - killed, lost))
    whole = time.time() - began
    os.killpg(running.pid, signal.SIGTERM)
    running.wait(60)
    effective = 1 - sum(each.until + each.lost for each in found) / whole
    print(f"\n{found}; {effective:.1%} of {whole:.0f} s count")  # noqa: T201
    assert all(each.until <= SOON for each in found)
    assert effective >= EFFECTIVE


def start(config, folder):
    command = [sys.executable, "-m", "aligntune", "train", "--config", str(config)]
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / "said.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=one)


def journal(output):
    return next(output.glob("stages/sft-*.partial/metrics.jsonl"), output / "none")


def losses(output):
    return [row for row in read(journal(output)) if "train/loss" in row.metrics]


def first_new_step(output, running):
    """When a step came that was never made before: what the journal has is not written again."""
    before = journal(output).stat().st_size if journal(output).exists() else 0
    known = len(losses(output))
    while running.poll() is None:
        time.sleep(0.1)
        if journal(output).exists() and journal(output).stat().st_size > before:
            rows = losses(output)
            if len(rows) > known:
                return rows[known].time / 1000
    raise AssertionError(f"it ended with {running.returncode}")


def last_saved(output):
    """When the step was made that the newest whole checkpoint has."""
    saved = output.glob("stages/sft-*.partial/work/checkpoints/step-*/manifest.json")
    newest = max(int(path.parent.name.partition("-")[2]) for path in saved)
    return next(row.time / 1000 for row in losses(output) if row.step >= newest)
