"""Rewards that compare an answer with the row's reference."""

import re
from collections.abc import Sequence
from decimal import Decimal

from aligntune.errors import ConfigError, DataError
from aligntune.rewards import symbolic
from aligntune.rewards.match import (
    FORMULA,
    as_number,
    final,
    last_number,
    matches,
    plain,
    stated,
    tagged,
)
from aligntune.rewards.types import Sample

_VARIABLE = re.compile(r"^\W*[A-Za-z]\s*=\s*(?=[^=]+$)")
_HASHES = re.compile(r"####([^\n#]*)")
_TRAILING = re.compile(r"\s*\\(?:text|mathrm)\s*\{[^{}]*\}\s*$")
_WORD = re.compile(r"(?<!\\)\b[^\W\d_]{3,}\b")
_FUNCTIONS = frozenset(
    ("sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "arcsin", "arccos", "arctan")
)


def math(
    samples: Sequence[Sample], *, seconds: float = 1.0, workers: int = 2
) -> list[float | None]:
    """1 where the answer equals the reference as mathematics, else 0.

    The answer is what follows the last `####` or stands in the last `\\boxed{...}`, else what the
    text ends with. A reference that is a number is compared as decimals with the answer's last
    number, or fraction of two: "18" equals "18.0", "1,800" equals "1800", "0.5" equals "1/2";
    other formulas do not equal it. A `\\text{...}` that is no unit is compared as text. Any other
    reference is compared by math-verify: `\\frac{1}{2}` equals 0.5, `(x+1)^2` equals `x^2+2x+1`,
    but 1/3 is not 0.333.

    math-verify runs in `workers` processes of its own, because its own limit on time does not work
    in threads; one that takes more than `seconds` of CPU time is killed, and its answer scores 0.
    It makes a new formula slow, about 250 per CPU-second, where numbers are above 10,000. None for
    a row without a reference.

    Raises:
        ConfigError: a reference is a formula, and math-verify is not installed.
        DataError: a reference has no number and is no formula.
    """
    if seconds <= 0 or workers < 1:
        raise ConfigError("reward 'math': seconds must be above 0, and workers at least 1")
    scores = [_quick(sample) for sample in samples]
    hard = [index for index, score in enumerate(scores) if isinstance(score, symbolic.Pair)]
    pairs = [score for score in scores if isinstance(score, symbolic.Pair)]
    found = dict(zip(hard, symbolic.equal(pairs, seconds, workers), strict=True))
    return [
        found[index] if isinstance(score, symbolic.Pair) else score
        for index, score in enumerate(scores)
    ]


def gsm8k(samples: Sequence[Sample], *, strict: bool = False) -> list[float | None]:
    """1 where the answer's number is the one after `####` in the reference, as in openai/gsm8k,
    else 0.

    The answer's number follows its own last `####` or stands in `\\boxed{...}`, else it is the last
    one, or the fraction that it ends; with `strict` only `#### 18` counts, as in the set's own
    check. Compared as decimals. None for a row without a reference. Raises DataError for a
    reference without a number.
    """
    return [
        None if s.answer is None else float(_given(s.completion, strict) == _number(s.answer))
        for s in samples
    ]


def exact_match(samples: Sequence[Sample]) -> list[float | None]:
    """1 where the answer is the reference but for case and outer spaces, else 0; None for a row
    without a reference."""
    return [
        None
        if s.answer is None
        else float(s.completion.strip().lower() == s.answer.strip().lower())
        for s in samples
    ]


def _given(text: str, strict: bool) -> Decimal | None:
    if not strict:
        return last_number(text)
    marked = _HASHES.findall(text)
    return as_number(marked[-1]) if marked else None


def _number(reference: str) -> Decimal:
    found = last_number(reference)
    if found is None:
        raise DataError(
            f"the reference {reference[:60]!r} has no number for reward 'gsm8k'; use 'math' or "
            "'exact_match', or other data"
        )
    return found


def _quick(sample: Sample) -> float | symbolic.Pair | None:
    """The score of what needs no algebra, and else what is to be compared."""
    if sample.answer is None:
        return None
    reference = _VARIABLE.sub("", final(sample.answer))
    bare = _TRAILING.sub("", reference)
    if as_number(bare) is not None or FORMULA.search(plain(bare)):
        reference = bare
    expected = as_number(reference)
    if expected is not None:
        return float(last_number(sample.completion) == expected)
    if "\\text" in reference and not FORMULA.search(plain(reference)):
        return float(matches(sample.completion, reference))
    if not any(word.lower() not in _FUNCTIONS for word in _WORD.findall(plain(reference))):
        return symbolic.Pair(reference, _last(sample.completion))
    expected = last_number(reference)
    if expected is None:
        raise DataError(
            f"the reference {sample.answer[:60]!r} is neither a number nor a formula for reward "
            "'math'; use 'exact_match', or other data"
        )
    return float(last_number(sample.completion) == expected)


def _last(text: str) -> str:
    """Where math-verify finds the answer of `text`."""
    text = tagged(text)
    said = stated(text)
    return f"\\boxed{{{said}}}" if said is not None else text[-symbolic.LONGEST :]
