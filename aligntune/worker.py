"""One stage in a process of its own: `python -m aligntune.worker SPEC RESULT PARENT`.

SPEC is what `run.to_json` wrote. RESULT gets the finished stage, or the error, as JSON; the exit
code is the error's. Signs of life go to `alive` beside SPEC, and SIGUSR1 prints all stacks.
"""

import faulthandler
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from aligntune import heartbeat
from aligntune.artifacts import write_atomic
from aligntune.aside import leave
from aligntune.console import configure, stage_progress
from aligntune.errors import AlignTuneError, Interrupted
from aligntune.interrupt import stop_on_signals, stop_with
from aligntune.launch import GRACE, LOG_LEVEL
from aligntune.processes import end_session
from aligntune.run import execute, from_json
from aligntune.startup import see_here

ALONE = int(GRACE) + 15
"""Seconds that a process which was asked to stop lives at most: nobody may be left to kill it."""


def main(spec: Path, result: Path, parent: int) -> int:
    stop_with(parent)
    faulthandler.enable(sys.stdout)
    faulthandler.register(signal.SIGUSR1, sys.stdout)
    console = Console(file=sys.stdout, force_terminal=False, width=200)
    configure(os.environ.get(LOG_LEVEL, "INFO"), console)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(None)  # who reads our lines adds the time
    stage, context = from_json(spec.read_text(encoding="utf-8"))
    heartbeat.watched(spec.with_name("alive"))
    alone = _left_alone(parent, context.log(stage.label))
    try:
        with stop_on_signals(alone) as stopping, stage_progress(console, stage.label) as show:

            def told(done: int, total: int, shown: Mapping[str, float]) -> None:
                heartbeat.tell(done, total, shown)
                show(done, total, shown)

            done = execute(stage, context, told, stopping)
    except AlignTuneError as error:
        return _failed(result, error)
    except KeyboardInterrupt:
        again = "the same command continues from the last checkpoint"
        return _failed(result, Interrupted(f"{stage.label}: stopped at once; {again}"))
    write_atomic(result, json.dumps({"done": asdict(done)}))
    return 0


def _left_alone(parent: int, log: Path) -> Callable[[], None]:
    """What a signal to stop does besides: the kernel ends this process after a while whatever
    happens, and if `parent` is dead, what is said still reaches the log."""

    def act() -> None:
        signal.alarm(ALONE)
        if os.getppid() == parent:
            return
        try:
            found = os.open(log, os.O_WRONLY | os.O_APPEND)
        except OSError:
            found = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):  # a pipe that nobody reads would break whoever prints
            os.dup2(found, stream)
        os.close(found)

    return act


def _failed(result: Path, error: AlignTuneError) -> int:
    record = {"error": type(error).__name__, "message": str(error)}
    write_atomic(result, json.dumps(record))
    return error.exit_code


if __name__ == "__main__":
    see_here()
    _parent = int(sys.argv[3])
    try:
        _code = main(Path(sys.argv[1]), Path(sys.argv[2]), _parent)
    finally:
        if os.getppid() != _parent:  # nobody else will
            shutil.rmtree(Path(sys.argv[1]).parent, ignore_errors=True)
            end_session(os.getpid())
            with suppress(OSError):  # a log on a full disk
                sys.stdout.flush()
            os._exit(1)  # before a thread that was given up starts something more
    leave(_code)
