"""The name that was meant."""

from collections.abc import Iterable
from difflib import SequenceMatcher


def nearest(name: str, known: Iterable[str], *, limit: int | None = None) -> str | None:
    """The known name with the fewest edits from `name`, or None if that takes too many.

    At most `limit` edits; by default one in three letters of the known name, and at least one.
    """
    name = name.lower()
    best: tuple[int, float, str] | None = None
    for key in known:
        allowed = max(1, len(key) // 3) if limit is None else limit
        if abs(len(name) - len(key)) > allowed:
            continue
        count = edits(name, key.lower())
        if count <= allowed:
            rank = (count, -SequenceMatcher(None, name, key).ratio(), key)
            best = min(best or rank, rank)
    return best and best[2]


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
