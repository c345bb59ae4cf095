"""A reward for questions with options."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from aligntune.errors import DataError
from aligntune.rewards.match import final, plain, stated
from aligntune.rewards.types import Sample

_LETTERS = "ABCDEFGHIJ"
_ALONE = re.compile(r"[*_\s]*(?:option\s+)?[(\[]?\s*([A-J])\s*[)\].:]*[*_\s]*", re.IGNORECASE)
_LED = re.compile(r"[*_\s]*(?:\(([A-J])\)|([A-J])[).:])[*_]*\s+(\S.*)", re.DOTALL)
_SAID = re.compile(
    r"\b(?:answer|choice|option)\s*(?:is|are|would\s+be|:)*\s*(?:option\s+)?"
    r"[*_\"'(\[]*([A-J])(?![A-Za-z0-9'])[*_\"')\].]*(?=(?P<next>[^\n]{0,20}))",
)
_MORE = re.compile(r"\s*(?:,|/|&|\band\b|\bor\b)\s*[*_(\[]*(?:[A-J]\b)")
_LONGEST = 20_000
"""Characters of an answer that are looked at, from its end."""


def multiple_choice(samples: Sequence[Sample], *, column: str = "choices") -> list[float | None]:
    """1 where the answer chooses the row's option, else 0; 0 for no choice and for several.

    The choice is the letter in `\\boxed{B}` or after `####`; else the last "answer is B"; else the
    whole last line, `B`, `(B)` or `B) and its text`; else the option whose text the last line
    is. The reference is a letter, or, where the row's `column` lists the options, the text of one
    or its number from 0. The column is a list of texts, or `{label, text}` as in allenai/ai2_arc.
    None for a row without a reference. Raises DataError for a reference that is no option.
    """
    return [
        None if s.answer is None else _right(s.completion, s.answer, s.columns.get(column))
        for s in samples
    ]


def _right(text: str, reference: str, given: Any) -> float:
    options = _options(given)
    return float(_chosen(text[-_LONGEST:], options) == _expected(reference.strip(), options))


def _options(given: Any) -> dict[str, str]:
    """Letter -> text."""
    if given is None:
        return {}
    labels: Sequence[Any] = _LETTERS
    if isinstance(given, Mapping):
        labels, given = given.get("label", _LETTERS), given.get("text")
    if not isinstance(given, list) or len(given) > len(labels):
        raise DataError(f"the options {str(given)[:60]!r} are no list of up to {len(labels)} texts")
    return {
        str(label).upper(): _same(str(text)) for label, text in zip(labels, given, strict=False)
    }


def _expected(reference: str, options: Mapping[str, str]) -> str:
    if alone := _ALONE.fullmatch(reference):
        letter = alone[1].upper()
        if not options or letter in options:
            return letter
    known = [letter for letter, text in options.items() if text == _same(reference)]
    if len(known) == 1:
        return known[0]
    if reference in options:
        return reference
    if reference.isdecimal() and int(reference) < len(options):
        return list(options)[int(reference)]
    raise DataError(
        f"the reference {reference[:60]!r} is none of the options "
        f"{', '.join(options) or 'A to J'} for reward 'multiple_choice'"
    )


def _chosen(text: str, options: Mapping[str, str]) -> str | None:
    if (marked := stated(text)) is not None:
        return _letter(marked, options)
    if said := list(_SAID.finditer(text)):
        return None if _MORE.match(said[-1]["next"]) else said[-1][1].upper()
    return _letter(final(text), options)


def _letter(text: str, options: Mapping[str, str]) -> str | None:
    text = plain(text).strip(" \t$")
    if alone := _ALONE.fullmatch(text):
        return alone[1].upper()
    if text in options:
        return text
    if led := _LED.fullmatch(text):
        letter = (led[1] or led[2]).upper()
        # "A) 3 B) 4" lists them all.
        if not _LISTED.search(led[3]) and options.get(letter) in (None, _same(led[3])):
            return letter
        return None
    known = [letter for letter, option in options.items() if option == _same(text)]
    return known[0] if len(known) == 1 else None


_LISTED = re.compile(r"(?:^|\s)(?:\([A-J]\)|[A-J][).:])(?:\s|$)")


def _same(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .\"'*")
