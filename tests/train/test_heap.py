"""Memory that a step frees is there for the next one."""

import resource

import torch

from aligntune.train.heap import kept

PIECES, EACH = 8, 8_000_000
"""Tensors of a step and their floats: pieces that glibc maps, never keeps."""
PAGES = PIECES * EACH * 4 // 4096


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def a_step():
    return [torch.ones(EACH) for _ in range(PIECES)]


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def test_pages_are_cleared_once_and_given_back():
    a_step()
    before = faults()
    a_step()
    assert faults() - before > PAGES / 4  # as it is without
    outside = resident()
    with kept(wanted=True):
        a_step()
        before = faults()
        a_step()
        assert faults() - before < PAGES / 20
    assert resident() < outside + PAGES / 4
    before = faults()
    a_step()
    assert faults() - before > PAGES / 4


def test_nothing_is_kept_that_nobody_wants():
    with kept(wanted=False):
        a_step()
        before = faults()
        a_step()
        assert faults() - before > PAGES / 4
