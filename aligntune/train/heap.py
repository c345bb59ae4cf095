"""What one training step frees stays with the process for the next one."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's mallopt(3)."""
LARGEST = 2**30
"""Bytes of the largest piece that is kept."""
NEVER = 2**31 - 1
DEFAULT = 128 * 1024
"""Bytes of both thresholds where nothing was set."""


@contextmanager
def kept() -> Iterator[None]:
    """Activations and gradients come from memory that the process has already.

    glibc gives large pieces back to the system as soon as they are free, and the system clears
    every page of them when they are asked for again, in each step: a fifth of a step's time and
    more. Afterwards all goes back. Other C libraries are left as they are.
    """
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    libc.mallopt(MMAP_THRESHOLD, LARGEST)
    libc.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        libc.mallopt(MMAP_THRESHOLD, DEFAULT)
        libc.mallopt(TRIM_THRESHOLD, DEFAULT)
        libc.malloc_trim(0)
