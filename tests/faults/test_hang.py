"""A training that stops getting on is found, ended as resumable, and leaves nothing behind."""

import os
import signal
import threading
import time

import psutil
import pytest
from faults.bench import BASE, CONFIGS, Server

MANY = int(os.environ.get("FAULT_POINTS", "2")) > 9
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not MANY, reason="waits for most of a minute; `make faults` plays it"),
]

RESUMABLE = 75
SILENCE = 10
"""Seconds without a sign of life that are allowed."""
SLACK = 60
"""Seconds from there to the end, on a busy machine; the kernel's SIGKILL comes 15 after SIGTERM."""


def test_a_stopped_process_is_found_and_ended(tiny_model, tmp_path):
    output, config = tmp_path / "out", tmp_path / "run.yaml"
    text = CONFIGS["sft"].replace("max_steps: 7", "max_steps: 100000")
    text += BASE.replace("MODEL", str(tiny_model)).replace("OUTPUT", str(output))
    config.write_text(text + f"launch: {{mode: process, hang_timeout: {SILENCE}}}\n")
    stopped: list[float] = []
    with Server(tmp_path) as server:
        thread = threading.Thread(target=stop_worker, args=(output, server, stopped))
        thread.start()
        arguments = ["train", "--config", str(config)]
        ended = server.command(arguments, tmp_path / "said.txt", output)
        thread.join()
        said = (tmp_path / "said.txt").read_text()
        took = time.monotonic() - stopped[0]
        print(f"ended {took:.1f} s after the last sign of life")  # noqa: T201
        assert ended.code == RESUMABLE, said
        assert "no sign of life for" in said
        assert SILENCE <= took < SILENCE + SLACK
        assert not server.left()
    assert list(output.glob("stages/sft-*.partial/work/checkpoints/step-*"))


def stop_worker(output, server, stopped):
    """SIGSTOP for the process that trains, once it has a checkpoint."""
    end = time.monotonic() + 300
    while time.monotonic() < end and not list(
        output.glob("stages/sft-*.partial/work/checkpoints/step-*/manifest.json")
    ):
        time.sleep(0.05)
    for process in psutil.Process(server.pid).children(recursive=True):
        if "aligntune.worker" in process.cmdline():
            stopped.append(time.monotonic())
            process.send_signal(signal.SIGSTOP)
