"""A fork server: imports the trainers once, then runs one stage, or one command, per child, with
one fault in it.

    python forks.py            reads jobs as JSON lines, answers with JSON lines

A job is {"spec": path or null, "arguments": those of a command, "log": path, "root": path,
"copies": n, "fault": name or null, "event": n, "sabotage": name or null}. The answers are the
children's process ids when they have started, and for each of them {"code": ..., "events": ...,
"error": ..., "reused": ...} when all have ended. `code` is negative for a signal. `events` counts
what the child did to the files below `root`: opening one to write, renaming, making a directory,
deleting. The fault happens just before event number `event`, so a run with a seed can be played
again exactly. A child leads a session of its own, and what it leaves behind becomes a child of the
server.
"""

import ctypes
import errno
import json
import logging
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PR_SET_CHILD_SUBREAPER = 36
POISONS = ("nan", "inf", "gradient")
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate"}


class Injector:
    """Counts changes of files below a directory, and does one bad thing at one of them."""

    def __init__(self, root: str, fault: str | None, event: int) -> None:
        self.root = root
        self.fault = fault
        self.event = event
        self.seen = 0
        self._lock = threading.RLock()
        sys.addaudithook(self._hook)

    def _hook(self, name: str, arguments: tuple[object, ...]) -> None:
        if not self._changes(name, arguments):
            return
        with self._lock:
            self.seen += 1
            due = self.seen == self.event
            full = self.fault == "full" and self.seen >= self.event > 0
        if full and name in ("open", "os.mkdir"):  # a full disk stays full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
        if due and self.fault == "kill":
            os.killpg(0, signal.SIGKILL)
        if due and self.fault == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        if due and self.fault in ("tomorrow", "yesterday"):
            day = 86_400 if self.fault == "tomorrow" else -86_400
            now, now_ns = time.time, time.time_ns
            time.time = lambda: now() + day
            time.time_ns = lambda: now_ns() + day * 10**9

    def _changes(self, name: str, arguments: tuple[object, ...]) -> bool:
        if name == "open":
            flags = arguments[2]
            writes = isinstance(flags, int) and flags & WRITES
        else:
            writes = name in CHANGES
        return bool(writes) and str(arguments[0]).startswith(self.root)


def poison(step: int, how: str) -> None:
    """A weight, or a gradient, that is not finite from micro-step number `step` on."""
    from aligntune.train.loop import Finite

    healthy, seen = Finite.training_step, 0

    def training_step(self: Any, model: Any, *arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == step:
            weight = next(p for p in model.parameters() if p.requires_grad)
            if how == "gradient":
                weight.register_hook(lambda gradient: gradient * float("nan"))
            else:
                weight.data.view(-1)[0] = float(how)
        return healthy(self, model, *arguments)

    Finite.training_step = training_step  # type: ignore[method-assign]


def sabotage(name: str) -> None:
    """Take one of our precautions away; the trial that is about it has to notice."""
    from aligntune import artifacts, run
    from aligntune.train import callbacks, checkpoints, loop

    def by_time(folder: Path) -> list[Path]:
        return sorted(folder.glob("step-*"), key=lambda path: path.stat().st_mtime)

    def unguarded(self: Any, *arguments: Any) -> Any:
        return super(loop.Finite, self).training_step(*arguments)  # type: ignore[misc]

    def counted(*_: Any, **__: Any) -> None:
        """From 0."""

    def early(partial: Path, manifest: Any) -> Any:
        shutil.rmtree(partial / artifacts.WORK)
        return artifacts.commit(partial, manifest)

    place, attribute, worse = {
        "unverified": (checkpoints, "_problem", lambda *_: None),
        "half written": (artifacts, "_STAGING", re.compile("(?!)")),
        "too early": (run, "commit", early),
        "by time": (checkpoints, "_by_step", by_time),
        "from 0": (callbacks.ContinueCount, "on_train_begin", counted),
        "one more step": (loop.Finite, "_run_epoch", super_method("_run_epoch", loop.Finite)),
        "unguarded": (loop.Finite, "training_step", unguarded),
        "unlocked": (run, "lock", lambda *_: nullcontext()),
        "unnamed": (run, "_named", lambda *_: nullcontext()),
        "deaf": (callbacks, "_any_process", lambda asked: False),
    }[name]
    setattr(place, attribute, worse)


def super_method(name: str, kind: type) -> Any:
    """What `kind` overrides."""
    return lambda self, *given, **named: getattr(super(kind, self), name)(*given, **named)


def child(job: dict[str, Any], answer: int) -> int:
    """Run the stage or the command; returns the exit code that the command line has."""
    os.setsid()
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    forget_the_seeds()
    injector = Injector(job["root"], job["fault"], job["event"])
    if job["sabotage"]:
        sabotage(job["sabotage"])
    if job["fault"] in POISONS:
        poison(job["event"], job["fault"])
    from aligntune.errors import AlignTuneError

    code, said, reused = 0, "", None
    try:
        reused = stage(job["spec"]) if job["spec"] else command(job["arguments"])
    except AlignTuneError as error:
        code, said = error.exit_code, str(error)
    except KeyboardInterrupt:
        code, said = 75, "stopped at once"
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the test has to hear of it
        import traceback

        traceback.print_exc()
        code, said = 70, repr(error)
    record = {"events": injector.seen, "error": said, "reused": reused}
    os.write(answer, json.dumps(record).encode())
    return code


def forget_the_seeds() -> None:
    """Random numbers as in a process of its own: what a training draws without a seed would else
    be the same in all children."""
    import numpy as np
    import torch

    random.seed()
    np.random.seed()  # the one that libraries draw from
    torch.seed()


def stage(spec: str) -> bool:
    """Whether the stage was there already; it is now."""
    from aligntune.interrupt import stop_on_signals
    from aligntune.run import execute, from_json

    logging.basicConfig(level=logging.INFO)
    wanted, context = from_json(Path(spec).read_text(encoding="utf-8"))
    with stop_on_signals() as stopping:
        return execute(wanted, context, lambda *shown: None, stopping).reused


def command(arguments: list[str]) -> None:
    from aligntune.cli import main

    sys.argv = ["aligntune", *arguments]
    main()
    sys.stdout.flush()


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    import torch

    torch.set_num_threads(1)
    import mlflow  # noqa: F401
    import transformers  # noqa: F401
    import trl  # noqa: F401

    import aligntune.courier
    import aligntune.direct
    import aligntune.evaluate.run
    import aligntune.registry
    import aligntune.stages
    import aligntune.train.bolt
    import aligntune.train.dpo
    import aligntune.train.ppo
    import aligntune.train.reward_model
    import aligntune.train.sft  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        children = [start(job) for _ in range(job["copies"])]
        print(json.dumps([pid for pid, _ in children]), flush=True)  # noqa: T201
        ends = [ended(*found) for found in children]
        reap()
        print(json.dumps(ends), flush=True)  # noqa: T201


def start(job: dict[str, Any]) -> tuple[int, int]:
    """A child's process id, and the pipe that it will answer through."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 70
        try:
            code = child(job, writing)
        finally:
            os._exit(code)
    os.close(writing)
    return pid, reading


def ended(pid: int, answer: int) -> dict[str, object]:
    _, status = os.waitpid(pid, 0)
    with os.fdopen(answer, "rb") as pipe:
        said = json.loads(pipe.read() or b'{"events": 0, "error": "", "reused": null}')
    return {"code": os.waitstatus_to_exitcode(status), **said}


def reap() -> None:
    """Bury those of its children's children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


if __name__ == "__main__":
    main()
