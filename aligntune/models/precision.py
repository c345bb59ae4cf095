"""The arithmetic that `precision: auto` stands for on this machine."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

from aligntune.config.model import Precision

GPU = (Path("/dev/nvidia0"), Path("/dev/kfd"))
"""Device files of CUDA and ROCm."""
NATIVE_BF16 = {"avx512_bf16", "amx_bf16"}
"""Processor flags of a CPU that computes in bfloat16 and does not emulate it."""
AMPERE = 8.0
"""The first compute capability with bfloat16; older NVIDIA GPUs have none."""


def has_gpu() -> bool:
    """Whether there is a GPU to train on; does not load torch."""
    return any(device.exists() for device in GPU)


def gpus(devices: Path = Path("/dev")) -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` may name here, without loading torch."""
    import os

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip()]
    found = (path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*"))
    return sorted((name for name in found if name.isdecimal()), key=int)


def capability() -> float | None:
    """The compute capability of the first NVIDIA GPU; None where its driver cannot be asked."""
    return first_gpu("compute_cap")


def first_gpu(fact: str) -> float | None:
    """A number that nvidia-smi knows of the first NVIDIA GPU, without torch; None where the driver
    cannot be asked."""
    import shutil
    import subprocess

    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, f"--query-gpu={fact}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20)
        return float(said.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None


def resolve(
    precision: Literal["auto"] | Precision,
    *,
    gpus: tuple[Path, ...] = GPU,
    cpuinfo: Path = Path("/proc/cpuinfo"),
    ask: Callable[[], float | None] = capability,
) -> Precision:
    """`precision`, with `auto` replaced by bf16 where the device has it natively, else fp32; says
    once which it is and why.

    Read from device files and drivers and not from torch, so that planning a run stays quick.
    """
    if precision != "auto":
        return precision
    chosen, reason = _auto(gpus, cpuinfo, ask)
    _say(chosen, reason)
    return chosen


def _auto(
    gpus: tuple[Path, ...], cpuinfo: Path, ask: Callable[[], float | None]
) -> tuple[Precision, str]:
    if any(gpu.exists() for gpu in gpus):
        known = ask()
        if known is not None and known < AMPERE:
            return "fp32", f"this GPU (compute capability {known}) has no bfloat16; fp16 is faster"
        return "bf16", "there is a GPU"
    native = sorted(NATIVE_BF16 & _flags(cpuinfo))
    if native:
        return "bf16", f"this CPU computes in it ({', '.join(native)})"
    return "fp32", "there is no GPU, and this CPU would have to emulate bfloat16"


@cache
def _say(chosen: Precision, reason: str) -> None:
    import logging

    logging.getLogger(__name__).info("precision: auto is %s here: %s", chosen, reason)


def _flags(cpuinfo: Path) -> set[str]:
    if not cpuinfo.is_file():
        return set()
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return set(flags.split())
    return set()
