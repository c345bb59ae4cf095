"""A fork server: imports the trainers once, then runs one stage per child, with one fault in it.

    python forks.py            reads jobs as JSON lines, answers with JSON lines

A job is {"spec": path, "log": path, "fault": name or null, "event": n, "root": path}. The answers
are {"pid": ...} when the child has started, and {"code": ..., "events": ..., "error": ...} when it
has ended. `code` is negative for a signal, `events` counts what the stage did to the files below
`root`: opening one to write, renaming, making a directory, deleting. The fault happens just before
event number `event`, so a run with a seed can be played again exactly.
"""

import errno
import json
import os
import signal
import sys
import threading
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
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
            os.kill(os.getpid(), signal.SIGKILL)
        if due and self.fault == "term":
            os.kill(os.getpid(), signal.SIGTERM)

    def _changes(self, name: str, arguments: tuple[object, ...]) -> bool:
        if name == "open":
            flags = arguments[2]
            writes = isinstance(flags, int) and flags & WRITES
        else:
            writes = name in CHANGES
        return bool(writes) and str(arguments[0]).startswith(self.root)


def child(job: dict[str, object], answer: int) -> int:
    """Run the stage; returns the exit code that the command line would have."""
    log = os.open(str(job["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from aligntune.errors import AlignTuneError
    from aligntune.interrupt import stop_on_signals
    from aligntune.run import execute, from_json

    stage, context = from_json(Path(str(job["spec"])).read_text(encoding="utf-8"))
    injector = Injector(str(job["root"]), job["fault"], int(str(job["event"])))  # type: ignore[arg-type]
    code, said = 0, ""
    try:
        with stop_on_signals() as stopping:
            execute(stage, context, lambda *shown: None, stopping)
    except AlignTuneError as error:
        code, said = error.exit_code, str(error)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the test has to hear of it
        import traceback

        traceback.print_exc()
        code, said = 70, repr(error)
    os.write(answer, json.dumps({"events": injector.seen, "error": said}).encode())
    return code


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    import transformers  # noqa: F401
    import trl  # noqa: F401

    import aligntune.stages
    import aligntune.train.bolt
    import aligntune.train.dpo
    import aligntune.train.ppo
    import aligntune.train.reward
    import aligntune.train.sft  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            code = child(job, writing)
            os._exit(code)
        os.close(writing)
        print(json.dumps({"pid": pid}), flush=True)  # noqa: T201
        _, status = os.waitpid(pid, 0)
        with os.fdopen(reading, "rb") as pipe:
            said = json.loads(pipe.read() or b'{"events": 0, "error": ""}')
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps({"code": code, **said}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
