"""What one training step frees stays with the process for the next one."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from aligntune.estimate.room import keeps_heap

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's mallopt(3)."""
LARGEST = 2**30
"""Bytes of the largest piece that is kept."""
NEVER = 2**31 - 1
USUAL = {MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26}
"""Bytes that glibc itself comes to in a process which frees large pieces."""


@contextmanager
def kept(*, wanted: bool) -> Iterator[None]:
    """Activations and gradients come from memory that the process has already, if that is wanted.

    glibc gives large pieces back to the system as soon as they are free, and the system clears
    every page of them when they are asked for again, in each step: a fifth of a step's time and
    more. Afterwards all goes back. Nothing is done where that cannot be: what was wanted may have
    been chosen on another machine, where the stage began.
    """
    if not (wanted and keeps_heap()):
        yield
        return
    libc = ctypes.CDLL(None)
    if not libc.mallopt(MMAP_THRESHOLD, LARGEST):  # glibc before 2.35 takes no more than its own
        libc.mallopt(MMAP_THRESHOLD, USUAL[MMAP_THRESHOLD])
    libc.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        for parameter, size in USUAL.items():
            libc.mallopt(parameter, size)
        libc.malloc_trim(0)
