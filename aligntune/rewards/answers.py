"""Rewards that compare an answer with the row's reference."""

from collections.abc import Sequence

from aligntune.errors import DataError
from aligntune.rewards.match import last_number
from aligntune.rewards.types import Sample


def math(samples: Sequence[Sample]) -> list[float | None]:
    """1 where the answer's number equals the reference's, else 0.

    That number is what follows `####` or stands in `\\boxed{...}`, else the last one. Compared as
    decimals: "18" equals "18.0", and "1,800" equals "1800". None for a row without a reference.
    Raises DataError for a reference without a number.
    """
    return [_equal(sample) for sample in samples]


def exact_match(samples: Sequence[Sample]) -> list[float | None]:
    """1 where the answer is the reference but for case and outer spaces, else 0; None for a row
    without a reference."""
    return [
        None
        if s.answer is None
        else float(s.completion.strip().lower() == s.answer.strip().lower())
        for s in samples
    ]


def _equal(sample: Sample) -> float | None:
    if sample.answer is None:
        return None
    expected = last_number(sample.answer)
    if expected is None:
        raise DataError(
            f"the reference {sample.answer[:60]!r} has no number for reward 'math'; use "
            "'exact_match', or other data"
        )
    return float(last_number(sample.completion) == expected)
