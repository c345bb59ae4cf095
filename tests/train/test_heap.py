"""Memory that a step frees is there for the next one."""

import ctypes
import resource

import torch

from aligntune.train.heap import LARGEST, MMAP_THRESHOLD, TRIM_THRESHOLD, USUAL, kept

PIECES, EACH = 8, 8_000_000
"""Tensors of a step and their floats: pieces that glibc maps, never keeps."""
PAGES = PIECES * EACH * 4 // 4096


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def a_step():
    """How many pages the system had to clear for it."""
    before = faults()
    pieces = [torch.ones(EACH) for _ in range(PIECES)]
    del pieces
    return faults() - before


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def test_pages_are_cleared_once_and_given_back():
    a_step()
    assert a_step() > PAGES / 4  # as it is without
    outside = resident()
    with kept(wanted=True):
        a_step()
        # What the tests before have left in the heap can lie in the way of a piece, once.
        assert min(a_step() for _ in range(5)) < PAGES / 20
    assert resident() < outside + PAGES / 4
    assert a_step() > PAGES / 4


def test_nothing_is_kept_that_nobody_wants():
    with kept(wanted=False):
        a_step()
        assert a_step() > PAGES / 4


class _Older:
    """glibc before 2.35: its largest threshold is the one that it comes to by itself."""

    def __init__(self):
        self.set = {}

    def mallopt(self, parameter, value):
        taken = parameter != MMAP_THRESHOLD or value <= 2**25
        if taken:
            self.set[parameter] = value
        return int(taken)

    def malloc_trim(self, pad):
        return 1


def test_an_older_c_library_keeps_as_much_as_it_can(monkeypatch):
    """Setting the other one freezes this one, which begins at 128 kB: that keeps less than none."""
    libc = _Older()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: libc)
    with kept(wanted=True):
        assert libc.set[MMAP_THRESHOLD] == 2**25
        assert libc.set[TRIM_THRESHOLD] > LARGEST
    assert libc.set == USUAL


def test_nothing_is_kept_where_it_cannot_be_or_malloc_is_set_by_hand(monkeypatch):
    """There a stage may go on that began elsewhere."""
    libc = _Older()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with kept(wanted=True):
        monkeypatch.setattr(ctypes, "CDLL", lambda _: libc)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    with kept(wanted=True):
        assert libc.set == {}
