"""Whether a written answer states the reference answer.

The answer is what follows the last `####`, what the last `\\boxed{...}` holds, or else the last
line (for numbers: the last number anywhere). A marked answer wins over whatever comes after it.
"""

import re
from decimal import Decimal

_NUMBER = re.compile(
    r"""(?P<sign>(?<![A-Za-z0-9.)\]}])[-+\u2212])?  # after a digit or a bracket it subtracts
        [$€£]?
        (?<![A-Za-z0-9])  # H2O is no number
        (?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
        (?P<exponent>[eE][-+]?\d{1,3}(?![A-Za-z0-9]))?""",
    re.VERBOSE,
)
_LATEX = re.compile(r"\\[,!;: ]|\\(?:left|right|displaystyle)\b|\\(?=[$%])|(?<=\d)\{,\}(?=\d)")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_ANSWER = re.compile(rf"\W*{_NUMBER.pattern}(?!\d|\s*[.):]\s*\S)", re.VERBOSE)
_BOXED = "\\boxed{"
_EDGES = " \t\"'`*_,;:!?$%"


def matches(text: str, reference: str) -> bool:
    """True if `text` ends in the reference: as decimals if it is a number, else as a string."""
    expected = final(reference)
    number = as_number(expected)
    if number is not None:
        return last_number(text) == number
    return _normalised(final(text)) == _normalised(expected)


def last_number(text: str) -> Decimal | None:
    """The number that `text` gives as its answer, or None. "1,800" and "1800.0" are equal."""
    said = stated(text)
    if said is not None and "\\frac" in said:
        return None
    found = list(_NUMBER.finditer(plain(text if said is None else said)))
    return _decimal(found[-1]) if found else None


def as_number(text: str) -> Decimal | None:
    """The number that `text` is, apart from punctuation and units of money or percent."""
    found = _NUMBER.fullmatch(plain(text).strip(_EDGES).rstrip("."))
    return _decimal(found) if found else None


def _decimal(found: re.Match[str]) -> Decimal:
    value = Decimal(found["digits"].replace(",", "") + (found["exponent"] or ""))
    return -value if found["sign"] in ("-", "\u2212") else value


def final(text: str) -> str:
    """What a marker says the answer is, else the last line."""
    lines = text.strip().splitlines()
    return stated(text) or (lines[-1] if lines else "")


def stated(text: str) -> str | None:
    """What the last marker in `text` says the answer is; None where none says anything."""
    hashes, boxed = text.rfind("####"), text.rfind(_BOXED)
    if boxed > hashes:
        return _braced(text[boxed + len(_BOXED) :]) or None
    if hashes < 0:
        return None
    line, _, rest = text[hashes + 4 :].partition("\n")
    line = line.strip()
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
