"""SIGTERM at any moment, to any command, ends a run as resumable: at most one step is lost, no
later stage is started, and in the end the weights are those of a run that nobody ended.

FAULT_POINTS and FAULT_SEED play more points, or the same ones again.
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from aligntune.digest import sha256
from aligntune.journal import read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

POINTS = int(os.environ.get("FAULT_POINTS", "3"))
SEED = int(os.environ.get("FAULT_SEED", str(random.SystemRandom().randrange(10**6))))
OK, RESUMABLE = 0, 75
COMMANDS = (("train",), ("train", "--set", "launch.mode=process"), ("flow",))
"""Neither changes what is trained, so all of them go on with one another's work."""
STAGES = ("model", "eval-data", "sft", "data", "dpo", "evaluate-base", "evaluate-dpo")
LONGEST = 3.0
"""Seconds into a stage."""
GONE = -signal.SIGTERM
"""Before anything listens there is nothing to save."""


def test_terminated_again_and_again_it_ends_with_the_same_weights(
    write_config, tmp_path, monkeypatch
):
    print(f"FAULT_SEED={SEED}")  # noqa: T201  # shown if the test fails
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
    rng, output = random.Random(SEED), tmp_path / "ended"
    config = write_config(output)
    config.write_text(
        config.read_text().replace("save_steps: 4", "save_steps: 100, eval_steps: 3")
        + "sample_logging: {interval_steps: 4, max_new_tokens: 8}\n"
    )
    for point in range(POINTS):
        stage, delay = rng.choice(STAGES), rng.uniform(0, LONGEST)
        command = COMMANDS[point % len(COMMANDS)]
        terminated(output, tmp_path / f"said-{point}", config, command, stage, delay)
    assert run(tmp_path / "last", config, COMMANDS[0]).wait(600) == OK
    whole = tmp_path / "whole"
    assert run(tmp_path / "other", config, ("train", "--output-dir", str(whole))).wait(600) == OK
    for stage in ("sft", "dpo"):
        assert result(output, stage) == result(whole, stage)


def run(said, config, command):
    verb, *settings = command
    with said.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "aligntune", verb, "--config", str(config), *settings],
            stdout=file, stderr=subprocess.STDOUT, env=os.environ.copy(),
        )  # fmt: skip


def terminated(output, said, config, command, stage, delay):
    """Run until `delay` seconds into `stage`, or to the end if it is not run any more."""
    process = run(said, config, command)
    while process.poll() is None and f"{stage} ..." not in said.read_text():
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    started = stages(output)
    code = process.wait(300)
    why = f"FAULT_SEED={SEED}: {command}, {delay:.2f} s into {stage}: {said.read_text()}"
    assert code in (OK, RESUMABLE, GONE), why
    assert stages(output) == started or code == OK, why
    for partial in (output / "stages").glob("*.partial/metrics.jsonl"):
        taken = [row.step for row in read(partial) if "train/loss" in row.metrics]
        saved = partial.parent.glob("work/checkpoints/step-*")
        newest = max((int(path.name.partition("-")[2]) for path in saved), default=0)
        assert not taken or newest >= taken[-1] - 1, why


def stages(output):
    """Those that have been started."""
    names = (path.name for path in (output / "stages").glob("*-*"))
    return {name.partition(".")[0] for name in names if not name.startswith(".")}


def result(output, stage):
    paths = (output / "stages").glob(f"{stage}-*/model/model.safetensors")
    (path,) = [path for path in paths if ".partial" not in str(path)]
    rows = [(row.step, row.metrics) for row in read(path.parents[1] / "metrics.jsonl")]
    curve = [(step, row["train/loss"]) for step, row in rows if "train/loss" in row]
    measured = [(step, row["eval/loss"]) for step, row in rows if "eval/loss" in row]
    return sha256(path), curve, measured
