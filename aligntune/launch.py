"""Starting a stage in a child process, watching it, and never leaving one behind."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from aligntune import errors
from aligntune.artifacts import find, timestamp
from aligntune.errors import AlignTuneError, Interrupted
from aligntune.heartbeat import Progress, Signs
from aligntune.output import Log, lines, until_ended
from aligntune.plan import Stage
from aligntune.processes import end_session, members
from aligntune.run import Context, Done, execute, to_json
from aligntune.supervise import UNLIMITED, Limits, Supervisor

LOG = logging.getLogger("aligntune")

LOG_LEVEL = "ALIGNTUNE_LOG_LEVEL"
"""The variable that tells a child how much to say."""
GRACE = 60.0
"""Seconds a child may take to save after it was asked to stop. Prefect kills the process that
started it after 30: the child gets along without."""
HUNG_GRACE = 15.0
"""The same of a child that hangs, which hardly will."""
STACKS = 3.0
"""Seconds that the stacks of a child may take to its log."""
NOTHING: Mapping[str, str] = MappingProxyType({})
_POLL = 0.2
"""Seconds between looks at whether someone asked to stop."""
_LOOK = 5
"""So many of these between looks at whether it hangs, or its time is over."""

_running: "set[Child]" = set()


def kill_children() -> None:
    """End all children at once, without a checkpoint. May be called in a signal handler."""
    for child in tuple(_running):
        child.kill()


class Child:
    """`run.execute` in a process of its own. `stop` may be called from another thread than `wait`,
    and has to be called, also after `wait` has returned or raised.

    It leads a session of its own. So a terminal's Ctrl-C, and a worker of Prefect that signals its
    whole group, reach this process alone, which passes them on once; a worker that kills its group
    while the child saves does not kill the child; and what the child has started ends with it.
    """

    def __init__(
        self, stage: Stage, context: Context, environment: Mapping[str, str] = NOTHING
    ) -> None:
        self._stage = stage
        self._context = context
        self._folder = tempfile.TemporaryDirectory(prefix="aligntune-")
        self._why: str | None = None
        self._killed = False
        self._gone = False
        self.log = Log(context.log(stage.label))
        spec = Path(self._folder.name) / "spec.json"
        self._result = Path(self._folder.name) / "result.json"
        self.signs = Signs(spec.with_name("alive"))
        spec.write_text(to_json(stage, context), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "aligntune.worker", str(spec), str(self._result)]
        self._process = subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ
            | {LOG_LEVEL: logging.getLevelName(LOG.getEffectiveLevel()), **environment},
        )
        _running.add(self)
        self.log.write(f"--- {timestamp()}: {stage.name} in process {self.pid}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, say: Callable[[str], None]) -> Done:
        """The finished stage; `say` gets the child's output line by line, as its log does.

        The stage succeeded if its artifact exists, never because the child returned 0.

        Raises:
            AlignTuneError: of the same class and with the same message as in the child.
        """
        last = ""
        assert self._process.stdout is not None
        with until_ended(self._process.stdout, self.ended) as stream:
            for line in lines(stream):
                last = line or last
                self.log.write(line)
                say(line)
        code = self._process.wait()
        self.ended()  # at once: later its number may be another's
        return self._outcome(code, last)

    def ended(self) -> bool:
        """Whether it is gone. What it has started is then, too."""
        if self._process.poll() is None:
            return False
        self._end_session()
        return True

    def halt(self, why: str | None = None, grace: float | None = None) -> None:
        """Ask a child that is still there to save and stop; after the grace period, kill it.

        `why` is what an error says of it.
        """
        if self._process.poll() is None:
            self._why = why
            self._process.terminate()
            try:
                self._process.wait(GRACE if grace is None else grace)
            except subprocess.TimeoutExpired:
                self._killed = True
                self._end_session()
                self._process.wait()
        self._end_session()

    def dump_stacks(self) -> None:
        """Have every process of the training write to its log where it is."""
        for process in members(self.pid):
            if _is_ours(process):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGUSR1)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STACKS)

    def kill(self) -> None:
        """End it at once."""
        self._killed = True
        self._end_session()

    def stop(self) -> None:
        """`halt`, and forget the child's result."""
        self.halt()
        _running.discard(self)
        self._folder.cleanup()

    def _end_session(self) -> None:
        """Once nothing of it is left, its number may become another's."""
        if not self._gone:
            waited_for = self._process.returncode is not None
            end_session(self.pid)
            self._gone = waited_for

    def _outcome(self, code: int, last: str) -> Done:
        found = self._result.exists()
        record = json.loads(self._result.read_text(encoding="utf-8")) if found else {}
        stage = self._stage
        if "error" in record:
            raise self._explained(getattr(errors, record["error"]), record["message"])
        if "done" in record and find(self._context.stages, stage.kind, stage.key):
            return Done(**record["done"])
        if code < 0:
            raise Interrupted(
                f"{stage.label}: {self._death(signal.Signals(-code).name)}; the same command "
                "continues from its last checkpoint"
            )
        raise AlignTuneError(
            f"{stage.label}: its process ended with code {code} and no artifact"
            f"{_EXITED if code == 0 else ''}; its last line was {last!r}, and everything it said "
            f"is in {self.log.path}"
        )

    def _explained(self, kind: type[AlignTuneError], message: str) -> AlignTuneError:
        if self._why is None or kind is not Interrupted:
            return kind(message)
        label = f"{self._stage.label}: "
        return kind(f"{label}{self._why}; {message.removeprefix(label)}")

    def _death(self, name: str) -> str:
        if not self._killed and self._why is None:
            likely = " (out of memory is the usual reason)" if name == "SIGKILL" else ""
            return f"its process was killed by {name}{likely}"
        why = "it was asked to stop" if self._why is None else self._why
        return f"{why}, and was killed because it did not save in time" if self._killed else why


_EXITED = ", as if it was finished: a reward or another library has ended it"


def _is_ours(process: int) -> bool:
    """Whether a process listens to SIGUSR1, which ends others."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended meanwhile
        return False
    return any(word in (b"aligntune.worker", b"aligntune.train.ranks") for word in words)


def execute_in_child(
    stage: Stage,
    context: Context,
    say: Callable[[str], None],
    stopping: Callable[[], bool],
    environment: Mapping[str, str] = NOTHING,
    limits: Limits = UNLIMITED,
    progress: Progress | None = None,
) -> Done:
    """`run.execute`, in a child process that does not outlive this call if there is anything to do.

    The child is asked to save and stop as soon as `stopping` says so, its time is over, or it
    hangs. It has the variables of this process and those of `environment`.

    Raises:
        Interrupted: it ended before it was finished, for one of these reasons.
        AlignTuneError: as in the child.
    """
    if stopping() or find(context.stages, stage.kind, stage.key):
        return execute(stage, context, _unseen, stopping)
    child = Child(stage, context, environment)
    ended = threading.Event()
    supervisor = Supervisor(child.pid, child.signs, limits)
    watch = threading.Thread(
        target=_watch,
        args=(child, supervisor, stopping, progress or _unseen, ended),
        daemon=True,
    )
    watch.start()

    def heard(line: str) -> None:
        supervisor.seen()
        say(line)

    try:
        return child.wait(heard)
    finally:
        ended.set()
        child.stop()
        watch.join()


def _watch(
    child: Child,
    supervisor: Supervisor,
    stopping: Callable[[], bool],
    progress: Progress,
    ended: threading.Event,
) -> None:
    looks, standing = 0, None
    while not ended.wait(_POLL):
        if child.ended():
            return
        if stopping():
            child.halt()
            return
        looks += 1
        if looks % _LOOK:
            continue
        if why := supervisor.overdue():
            child.halt(why)
            return
        if why := supervisor.hanging():
            child.dump_stacks()
            child.halt(f"{why}; where it was is in {child.log.path}", HUNG_GRACE)
            return
        before, standing = standing, child.signs.standing()
        if standing and standing != before:
            progress(standing.done, standing.total, standing.shown)


def _unseen(done: int, total: int, shown: Mapping[str, float]) -> None:
    """Progress that nobody looks at."""
