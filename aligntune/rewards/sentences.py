"""Sentences, words and syllables of English text, by short rules."""

import re

_ABBREVIATED = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|approx|No|Fig|Inc|Ltd|Co|cf|al|Mt|Gen|Lt"
    r"|Sgt|Rev|Hon|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)|\b(?:[A-Za-z]\.)+[A-Za-z])\.$"
)
_END = re.compile(
    r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019)\]*_]*+(?=\s|$)|[\u3002\uff01\uff1f]+"
)
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_VOWELS = re.compile(r"[aeiouyáéíóúàèìòùâêîôûäëïöü]+")
_SILENT = re.compile(
    r"(?<=[^aeiouyl])e$|(?<=[aeiouyl]l)e$"
    r"|(?<=[^aeiouydtl])ed$|(?<=[aeiouyl]l)ed$|(?<=[^aeiouycgshxzl])es$|(?<=[aeiouyl]l)es$"
)
"""A final e, and that of -es and -ed but after the sounds that need it, as in `boxes`."""
_APART = re.compile(
    r"(?<![ctgsxl])i[aou]|iet|sci(?=e)|(?<![gp])eo(?!u)|(?<=[aeiouy][^aeiouy])ea$|crea|oe[mt]|eum"
    r"|(?<![qg])ua(?=[lt])|sm$|thm|[aeiouy]ing"
)
"""Vowels side by side that are two syllables, and a syllable without a vowel."""


def sentences(text: str) -> list[str]:
    """The sentences of `text`: up to marks that end one, but not after abbreviations and initials,
    nor within numbers. What follows the last mark is one too. Each has a letter or digit."""
    found, start = [], 0
    for match in _END.finditer(text):
        at, end = match.span()
        if not _goes_on(match[0], text[max(start, at - 11) : at + 1], text[end : end + 9]):
            found.append(text[start:end].strip())
            start = end
    found.append(text[start:].strip())
    return [sentence for sentence in found if any(map(str.isalnum, sentence))]


def _goes_on(mark: str, before: str, after: str) -> bool:
    """Whether `mark` is of an abbreviation, or of a pause or quotation within a sentence."""
    if mark == ".":
        return bool(_ABBREVIATED.search(before))
    pause = mark in ("...", "\u2026") or not mark.endswith((".", "!", "?"))
    return pause and after.lstrip()[:1].islower()


def words(text: str) -> list[str]:
    """The words of `text` that have letters; a word with an apostrophe is one."""
    return _WORD.findall(text)


def syllables(word: str) -> int:
    """How many syllables an English word has, at least 1: groups of vowels, but for a
    silent e, and with vowels that stand side by side. Right for about 19 words in 20."""
    word = word.lower().replace("\u2019", "'").partition("'")[0]
    groups = len(_VOWELS.findall(word)) + len(_APART.findall(word))
    return max(groups - len(_SILENT.findall(word)), 1)
