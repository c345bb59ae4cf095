"""A reward for questions with options."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from aligntune.errors import DataError
from aligntune.rewards.match import final, plain, stated, tagged
from aligntune.rewards.types import Sample

_LETTERS = "ABCDEFGHIJ"
_ALONE = re.compile(r"[*_\s]*(?:option\s+)?[(\[]?\s*([A-J])\s*[)\].:]*[*_\s]*", re.IGNORECASE)
_LED = re.compile(r"[*_\s]*(?:\(([A-Ja-j])\)|([A-Ja-j])[).:])[*_]*\s+(\S.*)", re.DOTALL)
_LETTER = (
    r"(?:([A-J])(?![A-Za-z0-9'\u2019+#]|-\w)|([a-j])(?=[*_\"')\].}$]*\s*$))"
    r"(?!(?<=[AI]) (?!because|since|as\b|is\b|or\b|and\b|for\b|with\b|but\b)[a-z])"  # "A city"
    r"[*_\"')\].}$]*(?=(?P<next>[^\n]{0,20}))"
)
_LINK = r"(?:[\s*_:=\"'(\[{}$]|\\(?:text|math)\w*|\\\(|\b(?:is|are|(?:would|must|should)\s+be)\b)"
_SAID = re.compile(
    rf"(?<![A-Za-z])(?i:answer(?:{_LINK}|\boption\b|\bchoice\b)*|(?:choice|option)\s*(?:is|are|:){_LINK}*)"
    rf"(?<=[\s*_:=\"'(\[{{$]){_LETTER}",
    re.MULTILINE,
)
_NAMED = re.compile(rf"\b(?i:choice|option)[\s*_\"'(\[]+{_LETTER}", re.MULTILINE)
_MORE = re.compile(r"\s*(?:,|/|&|\band\b|\bor\b)\s*[*_(\[]*(?:[A-J]\b)")
_DENIED = re.compile(r"\b(?:not|wrong|incorrect|false)\b|n't\b", re.IGNORECASE)
_LONGEST = 20_000
"""Characters of an answer that are looked at, from its end."""


def multiple_choice(samples: Sequence[Sample], *, column: str = "choices") -> list[float | None]:
    """1 where the answer chooses the row's option, else 0; 0 for no choice and for several.

    The choice is the letter in `\\boxed{B}` or after `####`; else the last "answer is B", in any
    case; else the whole last line, `B`, `(B)` or `B) and its text`; else the option whose text the
    last line is; else the one "option B" that is named. Of an answer with `<answer>` only what
    stands in the last one counts.

    The reference is a letter, or, where the row's `column` lists the options, the text of one or
    its number from 0. The column is a list of texts, or `{label, text}` as in allenai/ai2_arc.
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
        raise DataError(
            f"the options {str(given)[:60]!r} are not a list of up to {len(labels)} texts"
        )
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
    text = tagged(text)
    if (marked := stated(text)) is not None:
        return _letter(marked, options)
    if said := list(_SAID.finditer(text)):
        return None if _MORE.match(said[-1]["next"]) else _spoken(said[-1])
    if letter := _letter(final(text), options):
        return letter
    named = [one for one in _NAMED.finditer(text) if not _DENIED.search(one["next"])]
    several = any(_MORE.match(one["next"]) for one in named)
    letters = {_spoken(one) for one in named}
    return letters.pop() if len(letters) == 1 and not several else None


def _spoken(found: re.Match[str]) -> str:
    return (found[1] or found[2]).upper()


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


_LISTED = re.compile(r"(?:^|\s)(?:\([A-J]\)|[A-J][).:])(?:\s|$)", re.IGNORECASE)


def _same(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .\"'*")
