"""Whether a written answer states the reference answer.

The answer is what stands in the last `<answer>`, if there is one; in that, what follows the last
`####`, what the last `\\boxed{...}` holds, or else the last line (for numbers: the last number
anywhere). A marked answer wins over whatever comes after it.
"""

import re
from decimal import Decimal

FORMULA = re.compile(
    r"\^|(?<!\*)\*(?!\*)|\d\*\*\d|\\[A-Za-z]|[/!]\s*\d|\d\s*!|[A-Za-z\d]\s*[-+\u2212]\s*\d"
    r"|\d\s*[-+\u2212]\s*[A-Za-z]\b(?!\s[a-z]{2})|\d\s*[xyz]\b"
)
"""Of a formula that has numbers in it, and not of a number that has a unit."""
_NUMBER = re.compile(
    r"""(?P<sign>(?<![A-Za-z0-9.)\]}])[-+\u2212])?  # after a digit or a bracket it subtracts
        [$€£]?
        (?<![A-Za-z0-9])(?<![A-Za-z]_)(?<!_\{)  # H2O is no number
        (?P<digits>\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
        (?P<exponent>[eE][-+]?\d{1,3}(?![A-Za-z0-9]))?""",
    re.VERBOSE,
)
_SEPARATORS = str.maketrans("", "", ",\u00a0\u2009\u202f")
_LATEX = re.compile(r"\\[,!;: ]|\\(?:left|right|displaystyle)\b|\\(?=[$%])|(?<=\d)\{,\}(?=\d)")
_WRAPPED = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it)|mbox)\s*\{([^{}]*)\}")
_FRACTION = re.compile(
    r"(?:([-+\u2212])\s*)?\\[cdt]?frac\s*"
    r"(?:\{\s*(-?[\d.,]+)\s*\}|(\d))\s*(?:\{\s*([\d.,]+)\s*\}|(\d))"
)
_QUOTIENT = re.compile(rf"[-\u2212]?\d+\s*/\s*\d+|{_FRACTION.pattern}")
_UNIT = re.compile(
    r"\^\s*\{?\s*\\circ\s*\}?|\\degree|(?:\\(?:text|mathrm)\s*\{[^{}]*\}|/\s*s"
    r"|(?<![A-Za-z\\])(?:[cdkm]?m|ft|in|yd|mi|units?))\s*\^\s*\{?[23]\}?"
)
"""Degrees, and a unit with its exponent: `\\text{cm}^2`."""
_ANSWER = re.compile(rf"\W*{_NUMBER.pattern}(?!\d|\s*[.):]\s*\S)", re.VERBOSE)
_WITHIN = re.compile(r"(?:[/^√]|\\sqrt|[\]}]\s?\{)\s?[{(]*$")
_BETWEEN = re.compile(r":(?=\d\d?(?!\d))|( ?)(?:\*\*|[*\u00d7\u00b7]|\\times|\\cdot)\1")
_AFTER = re.compile(
    r"\s*(?:\\(?:pi|theta|sqrt|ln|log|sin|cos|tan)\b|pi\b|[π√^]|/?[ixyz]++(?!\s*\w))"
)
"""What makes a number a part of something else before it, x/2 or \\frac{x}{2}, behind another
number, 3:45 or 2**5, and after it, 2\\pi or 2x."""
_EQUALS = re.compile(r"=|≈|\\approx")
_BOXED, _TAG = "\\boxed{", "<answer>"
_EDGES = " \t\"'`*_,;:!?$%"


def matches(text: str, reference: str) -> bool:
    """True if `text` ends in the reference: as decimals if it is a number or a fraction of two,
    else as a string."""
    expected = final(reference)
    number = as_number(expected)
    if number is None and _QUOTIENT.fullmatch(expected.strip(_EDGES)):
        number = last_number(expected)
    if number is not None:
        return last_number(text) == number
    return _normalised(final(tagged(text))) == _normalised(expected)


def last_number(text: str) -> Decimal | None:
    """The number that `text` gives as its answer, or None.

    "1,800" is 1800, and "1/2", `\\frac{1}{2}` and "0.5" are equal; the 2 in "x/2", "x^2", "2x" or
    "1:2" is no answer. A marked answer is read behind its last equals sign; a formula is no number.
    """
    text = tagged(text)
    said = stated(text)
    read = text if said is None else _EQUALS.split(said)[-1].strip(" *_`")
    if "\\" in read or "^" in read or "{" in read:
        read = _FRACTION.sub(r" \1\2\3/\4\5", plain(_UNIT.sub("", read)))
    # Fractions are judged by what stands around them.
    if said is not None and FORMULA.search(read.replace("/", " ")):
        return None
    return _value(read)


def _value(text: str) -> Decimal | None:
    """Of the last number, or of the fraction that it ends."""
    before = [*_NUMBER.finditer(text)][-3:]
    if not before or _AFTER.match(text, before[-1].end()):
        return None
    last = before.pop()
    value, (start, gap) = _decimal(last), _gap(text, before, last)
    if before and gap.strip(" ") == "/":
        last = before.pop()
        if not value:
            return None
        value, (start, gap) = _decimal(last) / value, _gap(text, before, last)
        if before and 0 < value < 1 and gap and not gap.strip(" "):  # 1 1/2
            last = before.pop()
            whole, (start, gap) = _decimal(last), _gap(text, before, last)
            value = whole + value.copy_sign(whole)
    joined = _BETWEEN.match(text, start) if before else None
    if _WITHIN.search(gap[-40:]) or (joined and joined.end() == last.start()):
        return None
    return value


def _gap(text: str, before: list[re.Match[str]], last: re.Match[str]) -> tuple[int, str]:
    """Where `text` between the numbers starts, and what it is."""
    start = before[-1].end() if before else 0
    return start, text[start : last.start()]


def as_number(text: str) -> Decimal | None:
    """The number that `text` is, apart from punctuation and units of money or percent."""
    found = _NUMBER.fullmatch(plain(text).strip(_EDGES).rstrip("."))
    return _decimal(found) if found else None


def _decimal(found: re.Match[str]) -> Decimal:
    value = Decimal(found["digits"].translate(_SEPARATORS) + (found["exponent"] or ""))
    return -value if found["sign"] in ("-", "\u2212") else value


def final(text: str) -> str:
    """What a marker says the answer is, else the last line."""
    lines = text.strip().splitlines()
    return stated(text) or (lines[-1] if lines else "")


def tagged(text: str) -> str:
    """What stands in the last `<answer>...</answer>`, else all of `text`."""
    _, tag, said = text.rpartition(_TAG)
    return said.partition("</answer>")[0] if tag else text


def stated(text: str) -> str | None:
    """What the last marker in `text` says the answer is; None where none says anything."""
    hashes, boxed = text.rfind("####"), text.rfind(_BOXED)
    if boxed > hashes:
        return _braced(text[boxed + len(_BOXED) :]) or None
    if hashes < 0:
        return None
    line, _, rest = text[hashes + 4 :].partition("\n")
    line = line.strip().rstrip("!")
    # "#### Step 2" is a Markdown heading; "#### 18" is an answer whatever the model adds below it.
    return line if line and (not rest.strip() or _ANSWER.match(plain(line))) else None


def _braced(text: str) -> str:
    """`text` up to the brace that closes one before it, or the first line where none does."""
    depth = 1
    for index, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:index].strip()
    return text.partition("\n")[0].strip()


def plain(text: str) -> str:
    """`text` without the LaTeX around words and numbers."""
    return _LATEX.sub("", _WRAPPED.sub(r"\1", text))


def _normalised(text: str) -> str:
    return " ".join(plain(text).casefold().split()).strip(_EDGES + ".")
