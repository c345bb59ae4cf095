"""Runs a Python program that nobody trusts, in a process of its own.

bubblewrap gives it namespaces without a network, without the host's files and with a tree of
processes that dies as one. Limits that the kernel holds it to are set inside, under a user id that
no other run has, since root is exempt from the limit on processes. Output goes to a file with a
limit, so that a flood fills neither memory nor disk. What the kernel is asked goes through a filter
(`seccomp`).
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

from aligntune.errors import ConfigError
from aligntune.rewards import seccomp

OUTPUT = 1 << 20
"""Bytes that a program may write: to its output, and to any file."""
SCRATCH = 16 << 20
"""Bytes of its directory, which is in memory."""
_FILES = 64
_IDS = count(200_000 + os.getpid() * 16 % 1_000_000_000)
_HARNESS = """
import json, resource as r, sys
code, call, *limits = sys.argv[1:]
for name, value in zip(("AS", "CPU", "FSIZE", "NPROC", "NOFILE", "CORE"), map(int, limits)):
    r.setrlimit(getattr(r, "RLIMIT_" + name), (value, value))
with open(code, encoding="utf-8") as file:
    program = compile(file.read(), "program.py", "exec")
wanted = json.loads(call) if call else None
space = {"__name__": "program" if wanted else "__main__"}
exec(program, space)
if wanted:
    found = json.dumps(space[wanted[0]](*wanted[1]))
    sys.stdout.write("\\n" + found + "\\n")
"""


@dataclass(frozen=True)
class Limits:
    memory: int = 256
    """MiB of address space per process."""
    processes: int = 8
    """Processes and threads at once; together they can hold `memory` times as much."""
    isolated: bool = True
    """Under bubblewrap; else with resource limits alone."""


def run(program: str, stdin: str, call: str, seconds: float, limits: Limits) -> str | None:
    """What `program` printed; None where it failed, or took more than `seconds`.

    `call` is "" or JSON `[function, [argument, ...]]`, which is called once the program has been
    loaded, and whose value is the last line, as JSON. Blocks; safe in threads.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # a run without bubblewrap has another user's id
        with (
            _filled(program.encode("utf-8", "replace")) as code,
            _filled(seccomp.program() or b"") as calls,
            _filled(stdin.encode("utf-8", "replace")) as given,
            tempfile.TemporaryFile() as out,
        ):
            command = _command(code.fileno(), calls.fileno(), call, seconds, limits)
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=out,
                stderr=subprocess.DEVNULL,
                pass_fds=[code.fileno(), calls.fileno()],
                start_new_session=True,
                cwd=folder,
                env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"},
                **_identity(limits),
            )
            try:
                ended = process.wait(seconds)
            except subprocess.TimeoutExpired:
                ended = None
            finally:
                _kill(process)
            if ended != 0:
                return None
            out.seek(0)
            return out.read(OUTPUT).decode("utf-8", "replace")


def require() -> None:
    """Raise ConfigError where programs cannot be isolated."""
    if not available():
        raise ConfigError(
            "running programs needs isolation, and bubblewrap is not installed or may not make "
            "namespaces here; `apt-get install bubblewrap`, or accept the risk with `params: "
            "{isolation: none}`"
        )


@cache
def available() -> bool:
    """Whether programs can be isolated here: bubblewrap starts one that answers."""
    if not shutil.which("bwrap"):
        return False
    return (run("print(6 * 7)", "", "", 20, Limits()) or "").strip() == "42"


def _filled(content: bytes) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    os.fchmod(file.fileno(), 0o644)  # read under another id
    file.write(content)
    file.flush()
    file.seek(0)
    return file


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _identity(limits: Limits) -> dict[str, Any]:
    """Who runs the process: bubblewrap must start as root to drop to another id inside."""
    if limits.isolated or os.geteuid() != 0:
        return {}
    user = next(_IDS)
    return {"user": user, "group": user, "extra_groups": []}


def _command(code: int, calls: int, call: str, seconds: float, limits: Limits) -> list[str]:
    python = os.path.realpath(sys.executable)
    numbers = (limits.memory << 20, int(seconds) + 1, OUTPUT, _processes(limits), _FILES, 0)
    # -S: no site-packages, which also saves time.
    harness = ["-I", "-S", "-B", "-c", _HARNESS]
    if not limits.isolated:
        return [_plain_python(python), *harness, f"/dev/fd/{code}", call, *map(str, numbers)]
    return [
        *_namespaces(code, calls),
        *_dropped(),
        python,
        *harness,
        "/program.py",
        call,
        *map(str, numbers),
    ]


def _plain_python(python: str) -> str:
    """A Python that another user may start: root's own may be in root's home."""
    return python if os.geteuid() != 0 else shutil.which("python3", path="/usr/bin") or python


def _processes(limits: Limits) -> int:
    if limits.isolated or os.geteuid() == 0:
        return limits.processes
    # The user's other processes count too.
    return resource.getrlimit(resource.RLIMIT_NPROC)[0]


def _namespaces(code: int, calls: int) -> list[str]:
    root = os.geteuid() == 0
    shared = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    links = [
        part
        for name in ("bin", "sbin", "lib", "lib64")
        if os.path.exists(f"/{name}")
        for part in ("--ro-bind", f"/{name}", f"/{name}")
    ]
    prefix = os.path.realpath(sys.base_prefix)
    return [
        "bwrap", "--die-with-parent", "--new-session",
        *(shared if root else ["--unshare-all"]),
        "--ro-bind", "/usr", "/usr", *links, "--ro-bind", prefix, prefix,
        "--proc", "/proc", "--dev", "/dev",
        "--perms", "1777", "--size", str(SCRATCH), "--tmpfs", "/tmp",
        "--perms", "0755", "--size", "4096", "--tmpfs", "/dev/shm",
        "--perms", "0444", "--ro-bind-data", str(code), "/program.py",
        "--remount-ro", "/", "--chdir", "/tmp",
        *(["--seccomp", str(calls)] if seccomp.program() else []),
        *(["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"]
          if root else []),
        "--",
    ]  # fmt: skip


def _dropped() -> list[str]:
    if os.geteuid() != 0:
        return []
    user = str(next(_IDS))
    return [
        "setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=-all",
        "--bounding-set=-all", "--no-new-privs", "--",
    ]  # fmt: skip
