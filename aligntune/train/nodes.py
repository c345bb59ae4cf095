"""Several machines that train together, with a directory that all of them see.

    python -m aligntune.train.nodes SHARED COMMAND ...

The same on every node, with the variables that torchrun and the operators of Kubernetes set
(PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, PET_MASTER_PORT). The first node runs the command; the
others start their share of the processes of every training in it, and end when it has ended. SHARED
is a directory that no attempt had before.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aligntune.artifacts import write_atomic
from aligntune.errors import ConfigError

SHARED = "ALIGNTUNE_NODES"
"""The variable that tells a command on the first node that there are others."""
_POLL = 1.0
"""Seconds between looks for what the first node has announced."""
_ENDED = "ended"
_FAILED = "failed-"
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Nodes:
    """The machines, and which of them this is."""

    count: int = 1
    rank: int = 0
    address: str = "127.0.0.1"
    port: str = ""
    shared: Path | None = None

    def share(self, processes: int) -> int:
        """How many of the processes are one machine's.

        Raises:
            ConfigError: they cannot be shared out.
        """
        if processes % self.count:
            raise ConfigError(
                f"launch.processes: {processes} processes cannot be shared out evenly to "
                f"{self.count} nodes; make it a multiple of {self.count}"
            )
        return processes // self.count

    def announce(self, job: Path) -> None:
        """Let the other machines start their processes of a training."""
        assert self.shared is not None
        number = len(list(self.shared.glob("job-*")))
        write_atomic(self.shared / f"job-{number}", str(job.absolute()))

    def failed(self, patience: float = 0.0) -> dict[int, int]:
        """Rank -> exit code of what failed on other machines; waits so many seconds for one."""
        end = time.monotonic() + patience
        while self.shared is not None:
            found = sorted(self.shared.glob(f"{_FAILED}*"))
            if found or time.monotonic() >= end:
                return {int(f.name.removeprefix(_FAILED)): int(f.read_text()) for f in found}
            time.sleep(_POLL / 10)
        return {}


def announced() -> Nodes:
    """The machines that this process trains on: one, unless `main` has started it."""
    return _from_environment(Path(os.environ[SHARED])) if SHARED in os.environ else Nodes()


def _from_environment(shared: Path) -> Nodes:
    """As torchrun's variables say.

    Raises:
        ConfigError: one of them is missing, or is no number.
    """
    try:
        return Nodes(
            count=int(os.environ["PET_NNODES"]),
            rank=int(os.environ["PET_NODE_RANK"]),
            address=os.environ["PET_MASTER_ADDR"],
            port=os.environ["PET_MASTER_PORT"],
            shared=shared,
        )
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"the variables of torchrun do not say what the nodes are ({error}); set PET_NNODES, "
            "PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT on each"
        ) from error


def lead(shared: Path, command: list[str]) -> int:
    """Run the command, pass signals on to it, and tell the others when it has ended.

    It has a session of its own: else a Ctrl-C reached it twice, which stops it at once.
    """
    try:
        shared.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(f"{shared}: an earlier attempt had it; name a new directory") from None
    code = ConfigError.exit_code
    try:
        early: list[int] = []
        pass_on: Callable[[int], None] = early.append
        for number in _STOPS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                signal.signal(number, lambda number, _: pass_on(number))
        environment = os.environ | {SHARED: str(shared)}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        pass_on = process.send_signal
        for missed in early:
            process.send_signal(missed)
        code = process.wait()
        return code
    except OSError as error:
        raise ConfigError(f"{command[0]} cannot be started: {error.strerror}") from error
    finally:
        write_atomic(shared / _ENDED, str(code))


def follow(machines: Nodes) -> int:
    """Take part in every training that the first node announces, until it has ended.

    Returns the exit code of the command there, or of a process here that failed.
    """
    assert machines.shared is not None
    for number in _STOPS:  # the first node decides when to stop
        signal.signal(number, signal.SIG_IGN)
    done, running = 0, dict[int, subprocess.Popen[bytes]]()
    while True:
        ended = machines.shared / _ENDED
        if ended.exists():
            _stop(running)
            return int(ended.read_text(encoding="utf-8"))
        job = machines.shared / f"job-{done}"
        if job.exists():
            for process in running.values():  # what is left of an attempt before
                process.kill()
            _stop(running)
            running = _join(machines, Path(job.read_text(encoding="utf-8")))
            done += 1
        failed = {rank: process.returncode for rank, process in running.items() if process.poll()}
        for rank, code in failed.items():
            write_atomic(machines.shared / f"{_FAILED}{rank}", str(code))
        if failed:
            _stop(running)
            return int(next(iter(failed.values())))
        time.sleep(_POLL)


def _join(machines: Nodes, path: Path) -> dict[int, "subprocess.Popen[bytes]"]:
    """This machine's processes of a training, by rank."""
    from aligntune.train.ranks import meeting, read_job, start

    job = read_job(path)
    here = machines.share(job.spec.processes)
    shared = meeting(job.spec.processes, machines)
    first = machines.rank * here
    return {first + local: start(job, first + local, local, shared) for local in range(here)}


def _stop(running: Mapping[int, "subprocess.Popen[bytes]"]) -> None:
    """They end by themselves after the first process has; those that do not, here."""
    from aligntune.train.ranks import end

    for process in running.values():
        end(process)


def main(shared: Path, command: list[str]) -> int:
    machines = _from_environment(shared)
    return lead(shared, command) if machines.rank == 0 else follow(machines)


if __name__ == "__main__":
    try:
        raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
    except ConfigError as error:
        sys.stderr.write(f"ERROR {error.exit_code} {error}\n")
        raise SystemExit(error.exit_code) from error
