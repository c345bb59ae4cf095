"""Which combinations a sweep runs, and what each of them is called."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from random import Random

from aligntune.errors import ConfigError
from aligntune.sweep.axes import Axis

MOST = 1_000
"""Combinations of one sweep: more are a mistake."""
LONGEST_NAME = 64

Point = Mapping[str, str]
"""Setting -> the value it has, as it is written."""


def grid(axes: Sequence[Axis]) -> list[Point]:
    """Every combination, the last setting changing fastest.

    Raises:
        ConfigError: a range has no end of them, or there are too many.
    """
    for axis in axes:
        if axis.span:
            raise ConfigError(
                f"--set {axis.key}={axis.span.kind}:...: a grid has no values between two ends; "
                "give --random N or --optuna N, or list values"
            )
    if (count := math.prod(len(axis.values) for axis in axes)) > MOST:
        raise ConfigError(
            f"these are {count:,} combinations, more than {MOST:,}; name fewer values, or draw "
            "some of them with --random N"
        )
    keys = [axis.key for axis in axes]
    return [
        dict(zip(keys, values, strict=True)) for values in product(*(axis.values for axis in axes))
    ]


def drawn(axes: Sequence[Axis], count: int, seed: int) -> list[Point]:
    """`count` different combinations, or all where there are no more.

    The first ones of a larger count are those of a smaller one, so a sweep can be made longer.
    """
    random, found = Random(seed), dict[tuple[str, ...], Point]()
    wanted = min(count, math.prod(axis.count for axis in axes))
    while len(found) < wanted:
        values = tuple(axis.draw(random) for axis in axes)
        found.setdefault(values, dict(zip((axis.key for axis in axes), values, strict=True)))
    return list(found.values())


def probes(axes: Sequence[Axis]) -> list[Point]:
    """Combinations in which every value is there once, ranges by their ends."""
    first = {axis.key: axis.probes[0] for axis in axes}
    others = [first | {axis.key: value} for axis in axes for value in axis.probes[1:]]
    return [first, *others]


def name(base: str, point: Point) -> str:
    """`<base>-beta-0.1`: a run's name, the same whatever else the sweep has.

    Where two values could look alike, or the name would be too long, digits of a digest follow.
    """
    parts, exact = [], True
    for key, value in point.items():
        # Of a path its last part: the digest tells it from others.
        shown = re.sub(r"[^A-Za-z0-9._-]+", "-", value.rstrip("/").rpartition("/")[2])
        exact = exact and shown == value
        parts.append(f"{short(key, point)}-{shown}")
    made, digest = f"{base}-{'_'.join(parts)}", _digest(point)
    if exact and len(made) <= LONGEST_NAME:
        return made
    return f"{made[: LONGEST_NAME - len(digest) - 1]}-{digest}"


def short(key: str, others: Mapping[str, str] | Sequence[str]) -> str:
    """The last parts of `key` that no other of the keys ends with: `beta`, `sft.train.beta`."""
    parts = key.split(".")
    for size in range(1, len(parts) + 1):
        tail = parts[-size:]
        if sum(other.split(".")[-size:] == tail for other in others) == 1:
            return re.sub(r"[^A-Za-z0-9._-]+", "-", ".".join(tail))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", key)


def said(point: Point) -> str:
    """`train.beta=0.1 seed=2`."""
    return " ".join(f"{key}={value}" for key, value in point.items())


def _digest(point: Point) -> str:
    return hashlib.sha256(said(point).encode(errors="surrogatepass")).hexdigest()[:8]
