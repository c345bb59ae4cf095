"""What a process that leads a session has started, and the end of it all."""

import os
import signal
from contextlib import suppress
from pathlib import Path

_ROUNDS = 100
"""Looks at what is still there: what is being ended may have just started something."""
_DEAD = ("Z", "X")


def stat(folder: Path) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name, which may have spaces: state, parent, group,
    session ..."""
    try:
        return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:  # it has ended meanwhile
        return None


def members(session: int) -> list[int]:
    """The living processes of a session; none where the kernel does not say."""
    stats = ((folder, stat(folder)) for folder in Path("/proc").glob("[0-9]*"))
    return [
        int(folder.name)
        for folder, found in stats
        if found and int(found[3]) == session and found[0] not in _DEAD
    ]


def end_session(leader: int) -> None:
    """Kill every process of the session, also those with a group of their own, but not this one.
    A process that made a session for itself is none of them."""
    if leader != os.getsid(0):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)  # all that there is where nobody lists processes
    for _ in range(_ROUNDS):
        left = [process for process in members(leader) if process != os.getpid()]
        if not left:
            return
        for process in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
