"""Token ids of many texts, many of which begin alike: a conversation up to each of its answers.

A tokenizer of the `tokenizers` library cuts a text at its added tokens (`<|im_end|>`) first, and
what is between two of them does not see the rest. So up to the last added token of a text its ids
are the beginning of those of a longer text that begins like it, exactly.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = list[int]


@dataclass(frozen=True)
class _Marks:
    """The added tokens of a tokenizer."""

    pattern: re.Pattern[str]
    ids: frozenset[int]


@dataclass(frozen=True)
class _Cut:
    """A text as the beginning of another one, up to a mark, and its own end."""

    base: str
    marks: int
    """How many the beginning has; it ends with the last of them."""
    end: str
    """That mark, and what follows it."""


@dataclass
class _Batch:
    """Texts to encode as they are, and those that are made of them."""

    whole: dict[str, None] = field(default_factory=dict)
    cuts: dict[str, _Cut] = field(default_factory=dict)

    def add(self, texts: Iterable[str], marks: _Marks | None) -> None:
        """The texts of a row."""
        bases: list[str] = []
        for text in sorted(set(texts), key=lambda text: (-len(text), text)):
            cut = _cut(text, bases, marks) if marks and bases else None
            if cut is None:
                bases.append(text)
                self.whole[text] = None
            elif text not in self.whole:
                self.cuts[text] = cut
                self.whole[cut.end] = None


def encoded(rows: Iterable[Sequence[str]], tokenizer: "PreTrainedTokenizerBase") -> dict[str, Ids]:
    """The ids of every text, the same as if each were encoded by itself. Texts that may begin alike
    are those of one row."""
    marks, batch = _marks(tokenizer), _Batch()
    for texts in rows:
        batch.add(texts, marks)
    known = _plainly(list(batch.whole), tokenizer)
    if marks is None:
        return known
    places = {base: _places(base, known[base], marks) for base in _bases(batch)}
    made = {text: _joined(cut, known, places, marks) for text, cut in batch.cuts.items()}
    known |= _plainly([text for text, ids in made.items() if ids is None], tokenizer)
    return known | {text: ids for text, ids in made.items() if ids is not None}


def _bases(batch: _Batch) -> set[str]:
    return {cut.base for cut in batch.cuts.values()}


def _plainly(texts: list[str], tokenizer: "PreTrainedTokenizerBase") -> dict[str, Ids]:
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return dict(zip(texts, ids, strict=True))


@lru_cache(maxsize=2)
def _marks(tokenizer: "PreTrainedTokenizerBase") -> _Marks | None:
    """None where what is said above does not hold: for tokenizers in Python, and for added tokens
    that are looked for in changed text, take spaces with them, or are in one another."""
    tokens = tokenizer.added_tokens_decoder
    names = [token.content for token in tokens.values()]
    plain = not any(
        token.normalized or token.lstrip or token.rstrip or token.single_word
        for token in tokens.values()
    )
    alone = not any(one in other for one in names for other in names if one != other)
    if not (tokenizer.is_fast and names and plain and alone) or tokenizer.split_special_tokens:
        return None
    return _Marks(re.compile("|".join(map(re.escape, names))), frozenset(tokens))


def _cut(text: str, bases: Sequence[str], marks: _Marks) -> _Cut | None:
    count, last = 0, None
    for found in marks.pattern.finditer(text):
        count, last = count + 1, found
    if last is None:
        return None
    beginning = text[: last.end()]
    base = next((base for base in bases if base.startswith(beginning)), None)
    return None if base is None else _Cut(base, count, text[last.start() :])


def _places(text: str, ids: Ids, marks: _Marks) -> list[int] | None:
    """Where the marks of a text are among its ids; None if some of those come from no mark, such as
    the token for what is unknown."""
    places = [place for place, token in enumerate(ids) if token in marks.ids]
    return places if len(places) == sum(1 for _ in marks.pattern.finditer(text)) else None


def _joined(
    cut: _Cut, known: dict[str, Ids], places: dict[str, list[int] | None], marks: _Marks
) -> Ids | None:
    at, end = places[cut.base], known[cut.end]
    if at is None or end[0] not in marks.ids:
        return None
    return known[cut.base][: at[cut.marks - 1]] + end
