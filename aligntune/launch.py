"""Starting a stage in a child process, and never leaving one behind."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from aligntune import errors
from aligntune.artifacts import find
from aligntune.errors import AlignTuneError, Interrupted
from aligntune.plan import Stage
from aligntune.run import Context, Done, execute, to_json

LOG = logging.getLogger("aligntune")

LOG_LEVEL = "ALIGNTUNE_LOG_LEVEL"
"""The variable that tells a child how much to say."""
GRACE = 60.0
"""Seconds a child may take to save after it was asked to stop."""
NOTHING: Mapping[str, str] = MappingProxyType({})
_POLL = 0.2
"""Seconds between looks at whether someone asked to stop."""


class Child:
    """`run.execute` in a process of its own. `stop` may be called from another thread than `wait`,
    and has to be called, also after `wait` has returned or raised."""

    def __init__(
        self, stage: Stage, context: Context, environment: Mapping[str, str] = NOTHING
    ) -> None:
        self._stage = stage
        self._context = context
        self._folder = tempfile.TemporaryDirectory(prefix="aligntune-")
        spec = Path(self._folder.name) / "spec.json"
        self._result = Path(self._folder.name) / "result.json"
        spec.write_text(to_json(stage, context), encoding="utf-8")
        command = [sys.executable, "-m", "aligntune.worker", str(spec), str(self._result)]
        self._process = subprocess.Popen(
            [*command, str(os.getpid())],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ
            | {LOG_LEVEL: logging.getLevelName(LOG.getEffectiveLevel()), **environment},
        )

    def wait(self, say: Callable[[str], None]) -> Done:
        """The finished stage; `say` gets the child's output line by line.

        The stage succeeded if its artifact exists, never because the child returned 0.

        Raises:
            AlignTuneError: of the same class and with the same message as in the child.
        """
        last = ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            last = line.rstrip() or last
            say(line.rstrip())
        return self._outcome(self._process.wait(), last)

    def halt(self) -> None:
        """Ask a child that is still there to save and stop; after the grace period, kill it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def stop(self) -> None:
        """`halt`, and forget the child's result."""
        self.halt()
        self._folder.cleanup()

    def _outcome(self, code: int, last: str) -> Done:
        found = self._result.exists()
        record = json.loads(self._result.read_text(encoding="utf-8")) if found else {}
        if "error" in record:
            raise getattr(errors, record["error"])(record["message"])
        stage = self._stage
        if "done" in record and find(self._context.stages, stage.kind, stage.key):
            return Done(**record["done"])
        if code < 0:
            name = signal.Signals(-code).name
            likely = " (out of memory is the usual reason)" if name == "SIGKILL" else ""
            raise Interrupted(
                f"{stage.label}: its process was killed by {name}{likely}; the same command "
                "continues from its last checkpoint"
            )
        raise AlignTuneError(
            f"{stage.label}: its process ended with code {code} and no artifact; its last line "
            f"was {last!r}"
        )


def execute_in_child(
    stage: Stage,
    context: Context,
    say: Callable[[str], None],
    stopping: Callable[[], bool],
    environment: Mapping[str, str] = NOTHING,
) -> Done:
    """`run.execute`, in a child process that does not outlive this call if there is anything to do.

    The child is asked to save and stop as soon as `stopping` says so. It has the variables of this
    process and those of `environment`.
    """
    if find(context.stages, stage.kind, stage.key):
        return execute(stage, context, _unseen, stopping)
    child = Child(stage, context, environment)
    ended = threading.Event()
    watch = threading.Thread(target=_pass_on, args=(stopping, child, ended), daemon=True)
    watch.start()
    try:
        return child.wait(say)
    finally:
        ended.set()
        child.stop()
        watch.join()


def _pass_on(stopping: Callable[[], bool], child: Child, ended: threading.Event) -> None:
    while not ended.wait(_POLL):
        if stopping():
            child.halt()
            return


def _unseen(done: int, total: int, shown: Mapping[str, float]) -> None:
    """Progress of a stage that is there already."""
