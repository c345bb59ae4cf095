"""Several processes that train together, each on its own rows: this one, and others that it starts.

    python -m aligntune.train.ranks JOB RANK PARENT

What the others write besides checkpoints goes to a scratch folder, so each stage is one
process's, and they end with it.
"""

import faulthandler
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aligntune.aside import pause
from aligntune.config.slices import TrainSlice
from aligntune.errors import AlignTuneError, ConfigError, ResourceError
from aligntune.heartbeat import beat
from aligntune.interrupt import stop_with
from aligntune.startup import see_here
from aligntune.train import nodes

GRACE = 30.0
"""Seconds that the others may take to end after this process has."""

MEETING = "ALIGNTUNE_MEETING_TIMEOUT"
"""The variable with other seconds that processes on other machines may take to start."""

PATIENCE = 600.0

ANNOUNCED = "nodes.json"
"""The job in its own folder, for other machines."""

_READY = "ready"
"""In a process's folder, when it is about to meet the others."""

_PLACES = ("model", "data", "work", "reference")
_TOLD = ("key", "task", "kept_heap")


@dataclass(frozen=True)
class Job:
    """What all of them train."""

    spec: TrainSlice
    model: Path
    data: Path
    work: Path
    """Scratch of the stage; checkpoints are in it."""
    key: str
    reference: Path | None = None
    """The artifact with the log-probabilities of dpo's reference."""
    task: Literal["train", "reference"] = "train"
    """Whether to train, or to compute those."""
    kept_heap: bool = False
    """Whether each process keeps what a step frees."""


@contextmanager
def together(job: Job) -> Iterator[None]:
    """`job.spec.processes` processes train `job` within, of which this is the first.

    On several machines (`nodes`), those of the others are started there.

    Raises:
        ConfigError: there are fewer GPUs, or machines with unequal numbers of processes.
        ResourceError: one of the others died.
    """
    count, machines = job.spec.processes, nodes.announced()
    if count == 1 and machines.count == 1:
        yield
        return
    here = machines.share(count)
    _check_devices(here)
    shared = meeting(count, machines)
    others = [start(job, rank, rank, shared) for rank in range(1, here)]
    if machines.count > 1:
        for rank in range(here, count):  # what an attempt before has left
            (_folder(job.work, rank) / _READY).unlink(missing_ok=True)
        (job.work / ANNOUNCED).unlink(missing_ok=True)
        write_job(job, job.work / ANNOUNCED)
        machines.announce(job.work / ANNOUNCED)
    try:
        _all_ready(job, others, machines)
        with _environment(shared | {"RANK": "0", "LOCAL_RANK": "0"}):
            yield
        _leave()
    except AlignTuneError:
        raise
    except Exception as error:
        raise _blamed(job, others, machines, error) from error
    finally:
        for other in others:
            end(other)
    for rank in range(1, count):
        shutil.rmtree(_folder(job.work, rank), ignore_errors=True)


def meeting(count: int, machines: nodes.Nodes) -> dict[str, str]:
    """The variables by which `count` processes find each other."""
    found = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": machines.address,
        "MASTER_PORT": machines.port or _free_port(),
    }
    if "OMP_NUM_THREADS" not in os.environ:
        found["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // machines.share(count), 1))
    return found


def accompany(job: Job, rank: int) -> None:
    """Do `job` as one of the others."""
    from aligntune.train import reference
    from aligntune.train.heap import kept
    from aligntune.train.loop import Setting
    from aligntune.train.policy import train_policy

    out = _folder(job.work, rank)
    setting = Setting(out, job.work, job.key, lambda done, total, shown: None, lambda: False)
    (out / _READY).touch()
    if job.task == "reference":
        reference.compute(job, setting, rank)
    else:
        with kept(wanted=job.kept_heap):
            train_policy(job.spec, job.model, job.data, setting, job.reference)
    _leave()


def write_job(job: Job, path: Path) -> None:
    record = {"spec": job.spec.model_dump(mode="json")} | {n: getattr(job, n) for n in _TOLD}
    found = {name: getattr(job, name) for name in _PLACES}
    places = {name: str(path.absolute()) for name, path in found.items() if path}
    path.write_text(json.dumps(record | places), encoding="utf-8")


def read_job(path: Path) -> Job:
    record = json.loads(path.read_text(encoding="utf-8"))
    found: dict[str, Any] = {name: Path(record[name]) for name in _PLACES if name in record}
    spec = TrainSlice.model_validate(record["spec"])
    found |= {name: record[name] for name in _TOLD}
    return Job(spec=spec, **found)


def _check_devices(count: int) -> None:
    import torch

    if torch.cuda.is_available() and count > torch.cuda.device_count():
        raise ConfigError(
            f"launch.processes: {count} processes need as many GPUs, and there are "
            f"{torch.cuda.device_count()}; lower it"
        )


def start(job: Job, rank: int, local: int, shared: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Another process of `job`, the `local`-th of this machine."""
    folder = _folder(job.work, rank)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_job(job, folder / "job.json")
    file = str(folder / "job.json")
    command = [sys.executable, "-P", "-m", "aligntune.train.ranks", file, str(rank)]
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            [*command, str(os.getpid())],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(local)},
        )


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _leave() -> None:
    """The others wait for this, so that nobody misses one who went ahead."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _all_ready(
    job: Job, others: Sequence["subprocess.Popen[bytes]"], machines: nodes.Nodes
) -> None:
    """Wait until all have started: who goes to meet one that never comes waits for half an hour."""
    began, here = time.monotonic(), len(others) + 1
    try:
        patience = _patience()
        while coming := _coming(job):
            if dead := _dead(job, others, machines):
                raise dead
            away = [str(rank) for rank in coming if rank >= here]
            if away and time.monotonic() - began > patience:
                raise ResourceError(
                    f"node {int(away[0]) // here} has not started within {patience:g} s (training "
                    f"processes {', '.join(away)} are missing); see that `aligntune.train.nodes` "
                    f"runs on all {machines.count} nodes and sees {job.work}, or give them longer "
                    f"by {MEETING}"
                )
            beat()
            pause(0.1, "training processes start")
    except AlignTuneError:
        for other in others:
            other.kill()
        raise


def _patience() -> float:
    text = os.environ.get(MEETING) or str(PATIENCE)
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ConfigError(f"{MEETING}={text!r} must be a number of seconds above 0")
    return found


def _coming(job: Job) -> list[int]:
    every = range(1, job.spec.processes)
    return [rank for rank in every if not (_folder(job.work, rank) / _READY).exists()]


def _dead(
    job: Job, others: Sequence["subprocess.Popen[bytes]"], machines: nodes.Nodes
) -> ResourceError | None:
    """What happened to one that has ended, as far as it is known here."""
    codes = {rank: other.poll() for rank, other in enumerate(others, start=1)}
    for rank, code in (codes | machines.failed()).items():
        if code is not None:
            return _died(job, rank, code)
    return None


def _died(job: Job, rank: int, code: int) -> ResourceError:
    output = _folder(job.work, rank) / "output.txt"
    lines = output.read_text(errors="replace").split("\n") if output.exists() else []
    last = next((line for line in reversed(lines) if line.strip()), "")
    return ResourceError(
        f"training process {rank} ended with code {code} and said {last!r}; the same "
        "command continues from the last checkpoint"
    )


def _blamed(
    job: Job,
    others: Sequence["subprocess.Popen[bytes]"],
    machines: nodes.Nodes,
    error: Exception,
) -> Exception:
    """`error`, or what happened to another process, which this one only noticed."""
    for rank, other in enumerate(others, start=1):
        try:
            code = other.wait(5)
        except subprocess.TimeoutExpired:
            continue
        if code != 0:
            return _died(job, rank, code)
    for rank, code in machines.failed(5).items():
        return _died(job, rank, code)
    return error


def end(other: "subprocess.Popen[bytes]") -> None:
    """Wait for a process that should be ending, and kill it if it does not."""
    try:
        other.wait(GRACE)
    except subprocess.TimeoutExpired:
        other.kill()
        other.wait()


def _folder(work: Path, rank: int) -> Path:
    return work / f"rank-{rank}"


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def main(path: Path, rank: int, parent: int) -> None:
    faulthandler.register(signal.SIGUSR1)
    # The first process decides when to stop, and tells the others at the end of a step.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stop_with(parent, signal.SIGKILL)
    try:
        accompany(read_job(path), rank)
    except AlignTuneError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    see_here()
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
