"""Where a completion reasons and where it answers, in token positions.

Markers and spans are found in the text, then carried over to tokens by character positions, which
is the same for every tokenizer. A span is a half-open range.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Span = tuple[int, int]


_NUMBER = r"\$?\d[\d,]{0,20}(?:\.\d{1,20})?%?"
# Bounded, so that a long row of sums is not searched again from each of its numbers.
ARITHMETIC = re.compile(
    rf"(?<![\d.,]){_NUMBER}(?:\s{{0,3}}[-+*/\u00d7\u00f7]\s{{0,3}}{_NUMBER}){{1,24}}"
    rf"\s{{0,3}}=\s{{0,3}}-?{_NUMBER}"
)
SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s|\Z)|(?=\n\s*\n)|\Z)", re.DOTALL)
FORMATTING = re.compile(r"\s*(#{1,4}|={1,4}|-{1,3})\s*")

SHORTEST_SENTENCE = 5
LONGEST_SPAN = 50
MOST_BACKSLASHES = 0.3
"""Share of a span's characters; more is markup, not reasoning."""

_INCOMPLETE = "\ufffd"
"""What a decoder makes of bytes that are not yet a character."""


@dataclass(frozen=True)
class Layout:
    """Where to look for what in one completion."""

    answer: Span
    """The answer's tokens, its marker included and the end of sequence not; all before reason."""
    spans: tuple[Span, ...]
    """Disjoint spans of reasoning, in order."""
    formatting: tuple[bool, ...]
    """For each reasoning token whether it only formats; never one within a span."""


def pieces(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[tuple[int, str]]:
    """The text of `ids` cut at token borders, as (tokens so far, characters they add).

    Tokens that only together are a character make one piece. Each piece is decoded behind the one
    before, since some tokenizers strip the space that text begins with.
    """
    found: list[tuple[int, str]] = []
    behind = done = 0
    for end in range(1, len(ids) + 1):
        text = decode(ids[behind:end])
        if text.endswith(_INCOMPLETE) and end < len(ids):
            continue
        found.append((end, text[len(decode(ids[behind:done])) :]))
        behind, done = done, end
    return found


def layout(
    ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    *,
    markers: Sequence[str],
    max_spans: int,
) -> Layout | None:
    """The layout of a completion without its end of sequence.

    `markers` are what an answer begins with, in either case; the first of them that occurs counts,
    where it first occurs. None without any, or with nothing before it.
    """
    cut = pieces(ids, decode)
    text = "".join(piece for _, piece in cut)
    patterns = (re.compile(re.escape(marker), re.IGNORECASE) for marker in markers)
    marker = next((match for pattern in patterns if (match := pattern.search(text))), None)
    if marker is None:
        return None
    tokens = _Tokens(cut)
    start, _ = tokens.over(marker.start(), marker.end())
    if start == 0:
        return None
    reasoning = text[: marker.start()]
    spans = _spans(reasoning, tokens, start, max_spans)
    inside = {position for span in spans for position in range(*span)}
    formatting = [False] * start
    begin = 0
    for end, piece in cut:
        if FORMATTING.fullmatch(piece):
            for position in range(begin, min(end, start)):
                formatting[position] = position not in inside
        begin = end
    return Layout((start, len(ids)), spans, tuple(formatting))


class _Tokens:
    """Token positions for character positions."""

    def __init__(self, cut: Sequence[tuple[int, str]]) -> None:
        self._tokens = [0, *(end for end, _ in cut)]
        self._chars = [0]
        for _, piece in cut:
            self._chars.append(self._chars[-1] + len(piece))

    def over(self, start: int, end: int) -> Span:
        """The tokens that make any of the characters in [start, end)."""
        first = bisect_right(self._chars, start) - 1
        last = bisect_left(self._chars, end)
        return self._tokens[first], self._tokens[last]


def _spans(text: str, tokens: _Tokens, stop: int, max_spans: int) -> tuple[Span, ...]:
    """At most `max_spans` spans of `text` before token `stop`: arithmetic first, at most half of
    them, then sentences that contain none of it."""
    taken = list(_found(ARITHMETIC, text, tokens, stop))[: max_spans // 2]
    for span in _found(SENTENCE, text, tokens, stop):
        if _size(span) >= SHORTEST_SENTENCE and not any(_overlap(span, other) for other in taken):
            taken.append(span)
    return tuple(sorted(taken)[:max_spans])


def _found(pattern: re.Pattern[str], text: str, tokens: _Tokens, stop: int) -> Iterator[Span]:
    for match in pattern.finditer(text):
        words = match.group()
        span = tokens.over(*match.span())
        markup = words.count("\\") > MOST_BACKSLASHES * len(words)
        if span[1] <= stop and _size(span) <= LONGEST_SPAN and not markup:
            yield span


def _size(span: Span) -> int:
    return span[1] - span[0]


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]
