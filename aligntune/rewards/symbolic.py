"""Equality of formulas by math-verify."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from aligntune.errors import DataError
from aligntune.extras import require
from aligntune.rewards.workers import pool

LONGEST = 2000
"""Characters of an answer that are looked at, from its end."""
_log = logging.getLogger(__name__)


class Pair(NamedTuple):
    reference: str
    answer: str


def equal(pairs: Sequence[Pair], seconds: float, workers: int) -> list[float]:
    """1 for each answer that equals its reference, else 0; also for one that takes more than
    `seconds` of CPU time, which is logged. Safe in threads.

    Raises:
        ConfigError: math-verify is not installed.
        DataError: a reference is no formula.
    """
    if not pairs:
        return []
    what = f"the reference {pairs[0].reference[:60]!r} is not a number, and comparing formulas"
    require(what, "math-verify", "rewards")
    words = pool("formulas", "math_verify").ask(pairs, seconds, workers)
    for pair, word in zip(pairs, words, strict=True):
        if word == "unread":
            raise DataError(
                f"the reference {pair.reference[:60]!r} is not a formula that math-verify can "
                "read; use another reward, or other data"
            )
    if slow := words.count(None):
        _log.warning("reward 'math': %d answers took more than %g s and score 0", slow, seconds)
    return [float(word == "equal") for word in words]
