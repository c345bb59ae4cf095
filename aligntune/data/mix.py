"""Which rows, as pure functions of counts, weights and seeds."""

import hashlib
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def keys(seed: int, texts: Iterable[str]) -> list[int]:
    """64 bits for each text that depend on both and on nothing else."""
    start = hashlib.blake2b(digest_size=8, salt=seed.to_bytes(8, "big"))
    digests = []
    for text in texts:
        digest = start.copy()
        digest.update(text.encode())
        digests.append(digest.digest())
    found: list[int] = np.frombuffer(b"".join(digests), ">u8").tolist()
    return found


def generator(seed: int, source: int | str, purpose: str) -> np.random.Generator:
    """Random numbers of their own for each purpose, so that none shifts another's."""
    digest = _digest(f"{seed}/{source}/{purpose}")
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def sample(count: int, wanted: int, random: np.random.Generator) -> Indices:
    """`wanted` of the indices below `count`, ascending; all of them where that is not enough."""
    if wanted >= count:
        return np.arange(count)
    return np.sort(random.permutation(count)[:wanted])


def shares(counts: Sequence[int], weights: Sequence[float], *, repeat: bool = False) -> list[int]:
    """How many rows each source gives.

    Equal weights: all its rows, once. Else floor(total * weight / sum of weights), where `total` is
    the largest for which every source has enough rows, so that none gives a row twice; with
    `repeat` it is the largest for which some source has enough, and the others give rows again.
    """
    if len(set(weights)) == 1:
        return list(counts)
    exact = [Fraction(str(weight)) for weight in weights]
    parts = [weight / sum(exact) for weight in exact]
    # floor(total * part) <= count, as long as total < (count + 1) / part
    limits = [-(-(count + 1) // part) - 1 for count, part in zip(counts, parts, strict=True)]
    total = max(limits) if repeat else min(limits)
    return [int(total * part) for part in parts]


def drawn(count: int, wanted: int, random: np.random.Generator) -> Indices:
    """`wanted` of the indices below `count`: each as often as the others, or once more."""
    whole, rest = divmod(wanted, max(count, 1))
    return np.sort(np.concatenate([np.tile(np.arange(count), whole), sample(count, rest, random)]))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
