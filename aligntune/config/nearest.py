"""The name that was meant."""

from collections.abc import Iterable

SIMILAR = 0.62
"""difflib's ratio: `batch_size` finds `per_device_batch_size`, `extra` does not find `train`."""


def one_edit_from(name: str, known: Iterable[str]) -> str | None:
    """The known name at most one edit away, or None."""
    counts = {key: edits(name, key) for key in known if abs(len(key) - len(name)) <= 1}
    close = min(counts, key=lambda key: counts[key], default="")
    return close if counts.get(close, 2) <= 1 else None


def similar(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name` in small letters, or None if none does; of those
    that go on where `name` ends, the first: `adamw` is `adamw_torch`, not `adamw_8bit`."""
    from difflib import get_close_matches

    meant, every = name.lower(), list(known)
    close = get_close_matches(meant, every, n=5, cutoff=SIMILAR)
    longer = [one for one in every if one in close and one.startswith(f"{meant}_")]
    return next(iter(longer or close), None)


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
