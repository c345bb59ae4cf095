"""How much memory is free for a stage that starts now."""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aligntune.models.precision import first_gpu

Kind = Literal["cpu", "gpu"]
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "LD_PRELOAD")
"""By which glibc's malloc is set, or another one put in its place."""
_TUNABLES = "GLIBC_TUNABLES"


@dataclass(frozen=True)
class Room:
    """A device to train on, and its free memory."""

    kind: Kind
    free: int | None
    """Bytes for one process; None where that is not known."""
    keeps_heap: bool = False
    """Whether a process here can be told to keep what it frees."""


def room(processes: int = 1) -> Room:
    """The device that training uses here, and what is free of it for each of `processes` on this
    machine. Loads torch."""
    import torch

    if torch.cuda.is_available():
        return Room("gpu", int(torch.cuda.mem_get_info()[0]))
    return main_memory(processes)


def main_memory(processes: int = 1) -> Room:
    """The CPU of this machine, and what is free for each of `processes`."""
    free = free_memory()
    return Room("cpu", None if free is None else free // processes, keeps_heap())


def keeps_heap() -> bool:
    """Whether the C library is one that can keep what is freed (glibc), and nobody has told it how
    to with variables of the environment."""
    told = any(name in os.environ for name in _MALLOC) or "malloc" in os.environ.get(_TUNABLES, "")
    return not told and hasattr(ctypes.CDLL(None), "mallopt")


def free_gpu_memory() -> int | None:
    """Bytes that are free on the first NVIDIA GPU, without torch; None where its driver cannot be
    asked."""
    mebibytes = first_gpu("memory.free")
    return None if mebibytes is None else int(mebibytes) * 2**20


def free_memory(
    meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP, mount: Path = _MOUNT
) -> int | None:
    """Bytes of main memory that this process may still take: what the machine has available, or
    the container's limit has left. None where the system does not say."""
    known = [found for found in (_available(meminfo), *_left(cgroup, mount)) if found is not None]
    return min(known, default=None)


def _available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left(cgroup: Path, mount: Path) -> list[int]:
    """What each limit around this process leaves, by both versions of control groups."""
    try:
        lines = cgroup.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used = mount, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit = mount / "memory", "memory.limit_in_bytes"
            used = "memory.usage_in_bytes"
        else:
            continue
        folder = Path(os.path.normpath(f"{top}/{path}"))
        for place in (folder, *folder.parents):
            if not place.is_relative_to(top):
                break
            left = _difference(place, limit, used)
            found += [] if left is None else [left]
    return found


def _difference(place: Path, limit: str, used: str) -> int | None:
    """Pages of files that the kernel can drop at once do not count as used."""
    try:
        most = int((place / limit).read_text())
        taken = int((place / used).read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return None
    return max(most - taken + _droppable(place), 0)


def _droppable(place: Path) -> int:
    try:
        lines = (place / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    stat = dict(line.split() for line in lines)
    return int(stat.get("inactive_file", 0))
