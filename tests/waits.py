"""Waiting for something to become so, which fails instead of waiting for ever."""

import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

LONG = 120.0
"""Seconds that a server may take to answer on a busy machine."""


def until(
    true: Callable[[], Any], what: str, seconds: float = LONG, beside: "Popen[str] | None" = None
) -> None:
    """Return when `true` is; `beside` is a process that has to live as long."""
    end = time.monotonic() + seconds
    while not true():
        assert beside is None or beside.poll() is None, beside.communicate()[0]
        if time.monotonic() > end:
            if beside:
                beside.kill()
            pytest.fail(f"{what} took more than {seconds:g} s")
        time.sleep(0.02)


def wait_for_checkpoint(output: Path, process: "Popen[str]", stage: str = "sft") -> None:
    """Return when the training of `stage` below `output` has a checkpoint."""
    pattern = f"{stage}-*.partial/work/checkpoints/step-*"
    until(lambda: list((output / "stages").glob(pattern)), "a checkpoint", 600, process)
