"""What an unquoted word means in YAML 1.2."""

import re

MAX_DIGITS = 400

Scalar = str | int | float | bool | None

WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def plain(text: str) -> Scalar:
    """The value of `text`. ValueError for a number that is not finite or does not fit 64 bits."""
    if text in WORDS:
        return WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if INT.fullmatch(text):
        return _whole(text)
    if FLOAT.fullmatch(text):
        return _fraction(text)
    if NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a usable number; give a finite one, or quote it as text")
    return text


def _whole(text: str) -> int:
    if len(text) <= MAX_DIGITS:
        number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if -(2**63) <= number < 2**63:
            return number
    raise _too_large(text)


def _fraction(text: str) -> float:
    if len(text) <= MAX_DIGITS and abs(number := float(text)) < float("inf"):
        return number
    raise _too_large(text)


def _too_large(text: str) -> ValueError:
    return ValueError(
        f"the number {text[:40]} does not fit 64 bits; give a smaller one, or quote it as text"
    )
