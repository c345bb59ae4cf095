"""Rewards for the words that an answer shares with the row's reference."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

from aligntune.extras import require
from aligntune.rewards.types import Sample

_WORD = re.compile(r"[^\W_]+")
_LONGEST = 20_000
"""Characters of an answer that are looked at."""


def bleu(samples: Sequence[Sample]) -> list[float | None]:
    """Sentence BLEU against the reference by sacrebleu (13a tokens, effective order, exponential
    smoothing), from 0 to 1; None for a row without a reference.

    It counts n-grams up to 4 words, so a right answer in other words scores little, and a wrong one
    that differs in a word much. Raises ConfigError where sacrebleu is not installed.
    """
    return _compared("bleu", samples)


def chrf(samples: Sequence[Sample]) -> list[float | None]:
    """chrF2 against the reference by sacrebleu (Popović 2015; character 6-grams), from 0 to 1; None
    for a row without a reference. It sees parts of words, where BLEU sees words.

    Raises ConfigError where sacrebleu is not installed.
    """
    return _compared("chrf", samples)


def rouge(
    samples: Sequence[Sample], *, variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
) -> list[float | None]:
    """ROUGE F1 against the reference (Lin 2004), from 0 to 1; None for a row without a reference.

    `rougeL` is of the longest common subsequence of words, `rouge1` and `rouge2` of words and pairs
    of words. Words are letters and digits of any script, in lower case; on ASCII it equals the
    rouge-score package without stemming.
    """
    score = _VARIANTS[variant]
    return [
        None if s.answer is None else score(_words(s.answer), _words(s.completion)) for s in samples
    ]


def _compared(name: str, samples: Sequence[Sample]) -> list[float | None]:
    metric = _metric(name)
    return [
        None
        if s.answer is None
        else metric.sentence_score(s.completion[:_LONGEST], [s.answer]).score / 100
        for s in samples
    ]


@cache
def _metric(name: str) -> Any:
    require(f"reward {name!r}", "sacrebleu", "rewards")
    from sacrebleu.metrics import BLEU, CHRF

    # Without it, a sentence of fewer than four words never has a score.
    return BLEU(effective_order=True) if name == "bleu" else CHRF()


def _words(text: str) -> list[str]:
    return _WORD.findall(text[:_LONGEST].lower())


def _f1(common: int, first: int, second: int) -> float:
    return 2 * common / (first + second) if common else 0.0


def _grams(n: int) -> Callable[[list[str], list[str]], float]:
    def score(reference: list[str], given: list[str]) -> float:
        first, second = (
            Counter(zip(*(words[start:] for start in range(n)), strict=False))
            for words in (reference, given)
        )
        return _f1((first & second).total(), first.total(), second.total())

    return score


def _subsequence(reference: list[str], given: list[str]) -> float:
    return _f1(common_subsequence(reference, given), len(reference), len(given))


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, by rows of bits (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        kept = row & places.get(word, 0)
        row = ((row + kept) | (row - kept)) & every
    return len(first) - row.bit_count()


_VARIANTS = {"rouge1": _grams(1), "rouge2": _grams(2), "rougeL": _subsequence}
