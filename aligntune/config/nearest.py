"""The name that was meant."""

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

MAX_LETTERS = 64
"""Longer names are not compared: no key is near that long."""
SIMILAR = 0.62
"""difflib's ratio: `batch_size` finds `per_device_batch_size`, `extra` does not find `train`."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name one edit away from `name`, or else the most similar one, if any is."""
    known = list(known)
    if close := one_edit_from(name, known):
        return close
    if len(name) > MAX_LETTERS:
        return None
    return next(iter(get_close_matches(name.lower(), known, n=1, cutoff=SIMILAR)), None)


def one_edit_from(name: str, known: Iterable[str]) -> str | None:
    """The known name one edit away from `name`, or none; capitals are no edit."""
    if len(name) > MAX_LETTERS:
        return None
    name = name.lower()
    close = [key for key in known if edits(name, key.lower()) <= 1]
    return max(close, key=lambda key: SequenceMatcher(None, name, key).ratio(), default=None)


def edits(a: str, b: str) -> int:
    """Letters to delete, insert, replace, or swap with their neighbour, to make `a` into `b`."""
    before: list[int] = []
    above = list(range(len(b) + 1))
    for i, left in enumerate(a):
        row = [i + 1]
        for j, right in enumerate(b):
            cost = min(above[j + 1] + 1, row[j] + 1, above[j] + (left != right))
            if i and j and left == b[j - 1] and a[i - 1] == right:
                cost = min(cost, before[j - 1] + 1)
            row.append(cost)
        before, above = above, row
    return above[-1]
