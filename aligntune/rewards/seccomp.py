"""System calls that a sandboxed program has no use for, as a filter that the kernel applies.

Without it a program could make a user namespace of its own, be root in there, and mount a file
system in memory that has no limit.
"""

import platform
import struct
from collections.abc import Mapping, Sequence

_CALLS: Mapping[str, tuple[int, int]] = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
"""Refused: their numbers on x86_64 and on aarch64."""
_CLONE, _CLONE3 = (56, 220), 435
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""The place in the pairs above, and what the kernel calls the machine."""
_NAMESPACES = 0x7E020000
"""Flags of `clone` that make one."""
_X32 = 0x40000000
"""Calls above it are the same under other numbers."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38
"""Verdicts: go on, EPERM, ENOSYS."""


def program(machine: str | None = None) -> bytes | None:
    """The filter as the kernel reads it (classic BPF); None on a machine that is not known here."""
    known = _MACHINES.get(machine or platform.machine())
    if known is None:
        return None
    place, name = known
    refused = [numbers[place] for numbers in _CALLS.values()]
    checks: list[tuple[int, int, str, str]] = [
        (_LOAD, _MACHINE, "", ""),
        (_EQUAL, name, "", "refuse"),
        (_LOAD, _NUMBER, "", ""),
        (_AT_LEAST, _X32, "refuse", ""),
        *((_EQUAL, number, "refuse", "") for number in refused),
        # Its flags are behind a pointer; without it the C library takes clone.
        (_EQUAL, _CLONE3, "unknown", ""),
        (_EQUAL, _CLONE[place], "", "allow"),
        (_LOAD, _FIRST_ARGUMENT, "", ""),
        (_ANY_BIT, _NAMESPACES, "refuse", "allow"),
    ]
    return _assembled(checks, {"allow": _ALLOW, "refuse": _REFUSE, "unknown": _UNKNOWN})


def _assembled(checks: Sequence[tuple[int, int, str, str]], verdicts: Mapping[str, int]) -> bytes:
    """The checks, each with where it goes on if it holds and if not ("" is the next)."""
    places = {name: len(checks) + index for index, name in enumerate(verdicts)}
    lines = [
        struct.pack("HBBI", code, *(places[to] - at - 1 if to else 0 for to in (yes, no)), operand)
        for at, (code, operand, yes, no) in enumerate(checks)
    ]
    return b"".join([*lines, *(struct.pack("HBBI", _RETURN, 0, 0, v) for v in verdicts.values())])
