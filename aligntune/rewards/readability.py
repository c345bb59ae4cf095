"""How easy an answer is to read."""

from collections.abc import Sequence

from aligntune.errors import ConfigError
from aligntune.rewards.sentences import sentences, syllables, words
from aligntune.rewards.types import Sample

_FALLS = 50.0
"""Points beyond the range at which nothing is left of the reward."""
_LONGEST = 20_000
"""Characters that are looked at."""


def readability(
    samples: Sequence[Sample], *, min_ease: float = 60.0, max_ease: float = 100.0
) -> list[float | None]:
    """1 where the Flesch reading ease is from `min_ease` to `max_ease`, falling to 0 at 50 points
    outside, in [0, 1]; 0 for an answer without words.

    The ease is 206.835 - 1.015 words per sentence - 84.6 syllables per word (Flesch 1948): above
    90 very easy, 60 to 70 plain English, below 30 for graduates. It has an upper end because rows
    of short words are easier than any prose. Syllables and sentences are counted by short rules,
    for English alone; it says nothing of sense.

    Raises ConfigError for a range that is empty.
    """
    if min_ease > max_ease:
        raise ConfigError(
            f"reward 'readability': min_ease is {min_ease:g}, more than max_ease, {max_ease:g}"
        )
    return [_within(flesch(sample.completion), min_ease, max_ease) for sample in samples]


def flesch(text: str) -> float | None:
    """The Flesch reading ease of English text; None where it has no words."""
    text = text[:_LONGEST]
    spoken = words(text)
    if not spoken:
        return None
    per_sentence = len(spoken) / max(len(sentences(text)), 1)
    return 206.835 - 1.015 * per_sentence - 84.6 * sum(map(syllables, spoken)) / len(spoken)


def _within(ease: float | None, low: float, high: float) -> float:
    if ease is None:
        return 0.0
    return max(1 - max(low - ease, ease - high, 0.0) / _FALLS, 0.0)
