"""A reward of the user's own, checked and tried in a process of its own.

    python -m aligntune.rewards.apart PARENT

reads a request as JSON and writes its answer to the file that is named there. Whatever the function
does, exit, crash, hang or start something, the command that asks stands, and nothing is left of it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

from aligntune.artifacts import write_atomic
from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError
from aligntune.interrupt import stop_with
from aligntune.processes import end_session
from aligntune.rewards import check
from aligntune.rewards.probe import SECONDS, probe

IMPORT = 300.0
"""Seconds that its module may take to be imported: of torch, from a cold disk, it is minutes."""
MARGIN = 30.0
"""Seconds after its time is over in which the trial has to notice: the kernel ends it then."""
LAST = 5.0
"""Seconds that it may take to end when it has answered."""
_FOREVER = 1e8

_well: set[str] = set()
"""What was asked and is well: the runs of a sweep have the same rewards."""


def check_apart(reward: Reward) -> None:
    """`check` and `probe` of a function of the user's own, which this process does not import.

    Raises:
        ConfigError: as these, or it has ended the process that it was tried in.
    """
    asked = {"path": sys.path, "reward": reward.model_dump(mode="json")}
    known = json.dumps(asked)
    if known in _well:
        return
    with tempfile.TemporaryDirectory(prefix="aligntune-") as folder:
        answer = Path(folder) / "answer.json"
        code = _asked(json.dumps(asked | {"answer": str(answer)}))
        found = answer.read_text(encoding="utf-8") if answer.exists() else None
    if found is None:
        raise ConfigError(
            f"reward {reward.reward_type!r} ended the process that it was tried in "
            f"({_end(code)}); a run would end like that, so fix it"
        )
    if problem := json.loads(found):
        raise ConfigError(problem)
    _well.add(known)


def _asked(request: str) -> int:
    """The exit code, or minus the signal, of the process that answers."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "aligntune.rewards.apart", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=2,  # what a function prints is no result of a command
        start_new_session=True,
        encoding="utf-8",
    )
    try:
        process.communicate(request)
    finally:
        process.kill()
        end_session(process.pid)
    return process.wait()


def _end(code: int) -> str:
    if code == -signal.SIGALRM:
        return "it took too long and could not be interrupted"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _problem(reward: Reward) -> str | None:
    """What is wrong with it."""
    _end_after(IMPORT)
    try:
        check(reward.reward_type, reward.params, reward.model_name)
        _end_after(min(reward.timeout or SECONDS, _FOREVER) + MARGIN)
        probe(reward)
    except ConfigError as error:
        return str(error)
    except KeyboardInterrupt:  # its own: no terminal reaches this session
        return f"reward {reward.reward_type!r}, when it was tried, raised KeyboardInterrupt"
    return None


def _end_after(seconds: float) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _with_all(number: int, frame: FrameType | None) -> None:
    """Nobody is there who would end what was started."""
    end_session(os.getpid())
    os._exit(128 + number)


def main(parent: int) -> None:
    """Answer one request; `parent` is who asked."""
    signal.signal(signal.SIGTERM, _with_all)
    stop_with(parent)
    asked = json.load(sys.stdin)
    sys.path[:] = asked["path"]
    problem = _problem(Reward.model_validate(asked["reward"]))
    _end_after(LAST)
    write_atomic(Path(asked["answer"]), json.dumps(problem))


if __name__ == "__main__":
    main(int(sys.argv[1]))
