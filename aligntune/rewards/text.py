"""Rewards for the form of an answer."""

from collections.abc import Sequence

import regex

from aligntune.errors import ConfigError
from aligntune.rewards.types import Sample

SECONDS = 0.5
"""What a user's pattern may take per answer: some patterns take for ever."""
_THINK = regex.compile(r"\s*<think>(?:(?!</?think>).)*</think>\s*\S(?:(?!</?think>).)*", regex.S)


def length(
    samples: Sequence[Sample], *, min_length: int = 10, max_length: int = 200
) -> list[float | None]:
    """1 between `min_length` and `max_length` words; proportionally less outside, in [0, 1].

    Raises ConfigError for a range that is empty.
    """
    if not 0 <= min_length <= max_length or max_length == 0:
        raise ConfigError(
            f"reward 'length': no answer has {min_length} to {max_length} words; make min_length "
            "smaller than max_length"
        )
    counts = [len(sample.completion.split()) for sample in samples]
    return [
        min(count / max(min_length, 1), 1.0) * min(max_length / max(count, 1), 1.0)
        for count in counts
    ]


def repetition(samples: Sequence[Sample], *, n: int = 3) -> list[float | None]:
    """The share of an answer's word n-grams that are different, in (0, 1]; 1 where there is
    none. Raises ConfigError for n below 1."""
    if n < 1:
        raise ConfigError(f"reward 'repetition': n is {n}, and must be at least 1")
    return [_new_share(sample.completion.split(), n) for sample in samples]


def _new_share(words: list[str], n: int) -> float:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def matches(samples: Sequence[Sample], *, pattern: str) -> list[float | None]:
    """1 where the regular expression `pattern` is found in the answer, else 0.

    None where looking takes too long. Raises ConfigError for a broken pattern.
    """
    try:
        compiled = regex.compile(pattern, regex.DOTALL)
    except regex.error as error:
        raise ConfigError(f"reward 'regex': the pattern {pattern!r} is broken: {error}") from None
    return [_found(compiled, sample.completion) for sample in samples]


def _found(pattern: "regex.Pattern[str]", text: str) -> float | None:
    try:
        return float(bool(pattern.search(text, timeout=SECONDS)))
    except TimeoutError:
        return None


def think_format(samples: Sequence[Sample]) -> list[float | None]:
    """1 for exactly one `<think>...</think>` at the start and something after it, else 0."""
    return [float(bool(_THINK.fullmatch(sample.completion))) for sample in samples]


def overlong(
    samples: Sequence[Sample], *, max_length: int = 200, margin: int = 50
) -> list[float | None]:
    """DAPO's soft punishment (arXiv:2503.14476 eq. 13), in words: 0 up to `max_length - margin`,
    then falling to -1 at `max_length`, and -1 for what was cut off."""
    return [-1.0 if s.truncated else _excess(s, max_length, margin) for s in samples]


def _excess(sample: Sample, max_length: int, margin: int) -> float:
    over = len(sample.completion.split()) - (max_length - margin)
    return -min(max(over, 0) / max(margin, 1), 1.0)
