"""Which rows are held out, and which of the others are trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligntune.config.slices import DataSlice
from aligntune.data.ledger import Account
from aligntune.data.mix import Indices, drawn, generator, shares
from aligntune.errors import DataError

Keys = NDArray[np.uint64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """Numbers of rows in the pool."""

    trainable: Mask
    """By row, whether it may be trained on."""
    heldout: Indices
    """In the order in which they are written."""
    overlap: Indices
    """Rows that are neither, because a held-out split asks their question."""


def split(spec: DataSlice, keys: Keys, accounts: Sequence[Account]) -> Split:
    """No question is on both sides.

    A question is held out if a source's `eval_split` has it, or if its key is below the
    `eval_fraction` of a source that asks it. Keys depend on the question alone, so other stages
    and other runs hold out the same ones.
    """
    apart = np.zeros(len(keys), dtype=np.bool_)
    limits = np.zeros(len(keys), dtype=np.uint64)
    for account in accounts:
        inside = slice(account.first, account.first + account.kept)
        apart[inside] = account.source.heldout
        limits[inside] = np.uint64(fraction(spec, account) * 2**64)
    below = _below(keys, limits)
    asked = np.isin(keys, keys[below])
    overlap = ~apart & np.isin(keys, keys[apart])
    held = (asked & ~overlap) | apart
    order = np.flatnonzero(held)
    # By key: a larger `max_heldout` then only adds rows, whatever else is in the data.
    order = order[np.argsort(keys[order], kind="stable")][: spec.max_heldout]
    return Split(~held & ~overlap, order, np.flatnonzero(overlap))


def fraction(spec: DataSlice, account: Account) -> float:
    """Share of a source's questions that is held out."""
    dataset = account.source.dataset
    if account.source.heldout or dataset.eval_split or not spec.heldout_fraction:
        return 0.0
    given = dataset.eval_fraction
    return spec.heldout_fraction if given is None else given


def _below(keys: Keys, limits: Keys) -> Mask:
    """By row, whether its key says that it is held out; where any are to be, at least one question
    is, and at least one is not."""
    asked = limits > 0
    if not asked.any():
        return asked
    lowest, highest = keys[asked].min(), keys.max()
    if keys.min() == highest:
        raise DataError(
            f"{len(keys)} rows ask only one question, so none can be held out; give more data, or "
            "`evaluation.datasets`"
        )
    below: Mask = asked & (keys <= np.maximum(limits, lowest)) & (keys < highest)
    return below


def mixed(spec: DataSlice, accounts: Sequence[Account], trainable: Mask) -> Indices:
    """Numbers of the rows to train on, shuffled: of each source as many as its weight allows."""
    own = [account for account in accounts if not account.source.heldout]
    numbers = [
        account.first + np.flatnonzero(trainable[account.first : account.first + account.kept])
        for account in own
    ]
    counts = [len(found) for found in numbers]
    taken = shares(counts, [a.source.dataset.weight for a in own], repeat=spec.mix.repeat)
    if taken != counts and not all(taken):
        poor = taken.index(0)
        raise DataError(
            f"the weights leave 0 of {counts[poor]} rows of dataset {own[poor].source.name!r}, as "
            f"the sources have {counts} rows to train on; change `weight`, or use more data"
        )
    parts = [
        found[drawn(len(found), wanted, generator(spec.seed, index, "weight"))]
        for index, (found, wanted) in enumerate(zip(numbers, taken, strict=True))
    ]
    order = np.concatenate(parts)
    generator(spec.seed, "all", "shuffle").shuffle(order)
    return order


def rule(spec: DataSlice, accounts: Sequence[Account], counts: Sequence[int]) -> str:
    """How the sizes of the sources' shares came about, in a sentence."""
    own = [account for account in accounts if not account.source.heldout]
    weights = [account.source.dataset.weight for account in own]
    if len(own) == 1:
        return "One source gives all of its rows, once."
    if len(set(weights)) == 1:
        return "Equal weights: every source gives all of its rows, once."
    ratio = " : ".join(f"{weight:g}" for weight in weights)
    taken = " + ".join(map(str, counts))
    again = "until the largest share is used up; the others are repeated"
    once = "until the first source is used up; no row is repeated"
    return f"Weights {ratio} give {taken} rows, {again if spec.mix.repeat else once}."
