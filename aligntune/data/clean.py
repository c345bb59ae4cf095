"""What makes rows alike: the same text, nearly the same, or a part of an evaluation set's."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from aligntune.data.rows import TOOLS, Message, Row, prompt_of, text_of
from aligntune.extras import require

if TYPE_CHECKING:
    from rensa import RMinHash

PERMUTATIONS = 128
"""Of a MinHash: similarities are estimated to within 0.04."""
SHINGLE = 5
"""Words whose sequence counts as one element of a text."""
RECALL = 0.97
"""Share of the pairs at the threshold that must become candidates."""
TEMPLATE = 10
"""Questions that may share a run of words before it counts as the wording of a template."""
_WORD = re.compile(r"\w+")
_ALONE = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Characters of scripts without spaces between words; each counts as one."""
_ANY_WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+")
_SEED = 1


@lru_cache(maxsize=16)  # the same question is asked for by several
def normalised(text: str) -> str:
    """Without what does not make it another text: letter case, kinds of spaces, and whether
    accents are characters of their own."""
    if text.isascii():
        # Of what is printable only the space is one.
        if text.isprintable() and "  " not in text and text == text.strip(" "):
            return text.casefold()
    else:
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.casefold().split())


def duplicate_key(row: Row, what: Literal["prompt", "row"]) -> bytes:
    """16 bytes that are equal for duplicates: rows with the same prompt, or with the same answers
    to it too. Plain text is all prompt."""
    prompt = prompt_of(row) or row["messages"]
    digest = blake2b(_spoken(prompt) + row.get(TOOLS, "").encode(), digest_size=16)
    if what == "row":
        for name in ("messages", "chosen", "rejected", "completion"):
            if name in row:
                digest.update(b"\x02" + _spoken(row[name]))
        digest.update(f"\x03{row.get('label')}\x03{row.get('answer')}".encode())
    return digest.digest()


def _spoken(turns: Sequence[Message]) -> bytes:
    said = [
        f"{turn['role']}\x01{normalised(turn['content'])}{turn.get('tool_calls', '')}"
        for turn in turns
    ]
    return "\x00".join(said).encode()


def require_minhash() -> None:
    """Raises ConfigError if the package that near duplicates are found with is not there."""
    require("cleaning.near_duplicates", "rensa", "near-duplicates")


def signatures(rows: Sequence[Row]) -> "list[RMinHash]":
    """The MinHash of each row's word 5-grams; of all its words where it has fewer than five."""
    from rensa import RMinHash

    sets = [_shingles(normalised(text_of(row)).split()) for row in rows]
    made: list[RMinHash] = RMinHash.from_token_sets(sets, PERMUTATIONS, _SEED)
    return made


def _shingles(words: list[str]) -> list[str]:
    last = max(len(words) - SHINGLE, 0)
    return [" ".join(words[start : start + SHINGLE]) for start in range(last + 1)]


class Similar:
    """Remembers signatures by number, and finds the first that is like a new one. Some 2 kB each.

    Locality-sensitive hashing proposes, the estimated Jaccard similarity decides (Broder 1997).
    """

    def __init__(self, threshold: float) -> None:
        from rensa import RMinHashLSH

        self._threshold = threshold
        self._index = RMinHashLSH(threshold, PERMUTATIONS, bands(threshold))
        self._known: dict[int, RMinHash] = {}

    def first(self, signature: "RMinHash") -> int | None:
        """The lowest number of a text that is at least `threshold` similar."""
        for number in sorted(self._index.query(signature)):
            if self._known[number].jaccard(signature) >= self._threshold:
                return int(number)
        return None

    def add(self, number: int, signature: "RMinHash") -> None:
        self._index.insert(number, signature)
        self._known[number] = signature


def bands(threshold: float) -> int:
    """The fewest bands by which RECALL of the pairs at `threshold` agree in at least one."""
    for count in (1, 2, 4, 8, 16, 32, 64):
        if 1 - (1 - threshold ** (PERMUTATIONS // count)) ** count >= RECALL:
            return count
    return PERMUTATIONS


class Overlap:
    """What training rows must not repeat: the user's turns of evaluation rows.

    A run of `size` words is enough, unless more than TEMPLATE questions share it (Brown et al.
    2020, appendix C). A question that is shorter, or all template, counts only as a whole. Of
    plain text everything is a question.
    """

    def __init__(self, rows: Iterable[Row], size: int) -> None:
        self._size = size
        said = {" ".join(_words(text)): text for row in rows for text in _asked(row)}
        grams = [set(self._grams(text)) for text in said.values()]
        owners = Counter(gram for found in grams for gram in found)
        self._known = {gram for gram, count in owners.items() if count <= TEMPLATE}
        self._whole = {
            normalised(text)
            for text, found in zip(said.values(), grams, strict=True)
            if self._known.isdisjoint(found)
        }
        words = dict.fromkeys(word for gram in self._known for word in gram)
        self._ids = {word: number for number, word in enumerate(words, start=1)}
        numbers = [[self._ids[word] for word in gram] for gram in self._known]
        self._hashes = np.unique(_rolling(np.array(numbers, np.uint64).ravel(), size)[::size])

    def contaminated(self, rows: Sequence[Row]) -> list[bool]:
        """By row, whether it has something of an evaluation row in it."""
        found = [self._has_whole(row) for row in rows]
        words: list[list[str]] = []
        owners: list[int] = []
        for number, row in enumerate(rows):
            for turn in _turns(row):
                if turn["role"] != "system":
                    words.append(_words(turn["content"]))
                    owners.append(number)
        for turn_number in self._candidates(words):
            number = owners[turn_number]
            found[number] = found[number] or self._shares(words[turn_number])
        return found

    def _has_whole(self, row: Row) -> bool:
        if not self._whole:
            return False
        return any(
            normalised(turn["content"]) in self._whole
            for turn in _turns(row)
            if turn["role"] == "user" or not prompt_of(row)
        )

    def _candidates(self, turns: Sequence[Sequence[str]]) -> Iterator[int]:
        """Numbers of the turns with a window whose hash is known."""
        if not len(self._hashes) or not turns:
            return
        ids = [number for words in turns for number in [*map(self._ids.get, words), None]]
        flat = np.array([number or 0 for number in ids], np.uint64)
        # A word that no evaluation row has, and the end of a turn, are 0 and in no n-gram.
        seen = np.concatenate([[0], np.cumsum(flat == 0)])
        windows = len(flat) - self._size + 1
        if windows < 1:
            return
        whole = seen[self._size :] == seen[:windows]
        hits = np.flatnonzero(whole)
        hits = hits[np.isin(_rolling(flat, self._size)[hits], self._hashes)]
        ends = np.cumsum([len(words) + 1 for words in turns])
        yield from np.unique(np.searchsorted(ends, hits, side="right")).tolist()

    def _shares(self, words: list[str]) -> bool:
        """What the hashes propose, exactly."""
        return any(gram in self._known for gram in _windows(words, self._size))

    def _grams(self, text: str) -> Iterator[tuple[str, ...]]:
        return _windows(_words(text), self._size)


def _asked(row: Row) -> list[str]:
    prompt = prompt_of(row)
    turns = prompt if prompt else row.get("messages", [])
    return [turn["content"] for turn in turns if turn["role"] == "user" or not prompt]


def _turns(row: Row) -> Iterator[Message]:
    for name in ("messages", "prompt", "completion", "chosen", "rejected"):
        yield from row.get(name, ())


def _words(text: str) -> list[str]:
    return (_WORD if text.isascii() else _ANY_WORD).findall(text.casefold())


def _windows(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[start : start + size]) for start in range(len(words) - size + 1))


def _rolling(ids: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """A polynomial hash of each window of `size` ids, modulo 2^64."""
    windows = max(len(ids) - size + 1, 0)
    found = np.zeros(windows, np.uint64)
    for offset in range(size if windows else 0):
        found = found * np.uint64(0x9E3779B97F4A7C15) + ids[offset : offset + windows]
    return found
