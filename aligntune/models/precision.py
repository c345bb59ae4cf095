"""The arithmetic that `precision: auto` stands for on this machine."""

from pathlib import Path
from typing import Literal

from aligntune.config.model import Precision

GPU = (Path("/dev/nvidia0"), Path("/dev/kfd"))
"""Device files of CUDA and ROCm."""
NATIVE_BF16 = {"avx512_bf16", "amx_bf16"}
"""Processor flags of a CPU that computes in bfloat16 and does not emulate it."""


def has_gpu() -> bool:
    """Whether there is a GPU to train on; does not load torch."""
    return any(device.exists() for device in GPU)


def resolve(
    precision: Literal["auto"] | Precision,
    *,
    gpu: Path = GPU[0],
    cpuinfo: Path = Path("/proc/cpuinfo"),
) -> Precision:
    """`precision`, with `auto` replaced by bf16 where the device has it natively, else fp32.

    Read from device files and not from torch, so that planning a run stays quick.
    """
    if precision != "auto":
        return precision
    return "bf16" if gpu.exists() or NATIVE_BF16 & _flags(cpuinfo) else "fp32"


def _flags(cpuinfo: Path) -> set[str]:
    if not cpuinfo.is_file():
        return set()
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return set(flags.split())
    return set()
