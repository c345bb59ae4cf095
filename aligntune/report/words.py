"""Numbers, times and links as the page writes them."""

import math
import re
from datetime import datetime
from urllib.parse import urlsplit

from aligntune.config.naming import printable

LONGEST_TEXT = 4_000
"""Characters of one prompt or answer that are shown."""

NOT_FINITE = "not finite"
# No-break, so that a number and its unit stay on one line.
SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"

_HIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def visible(html: str) -> str:
    """`html` with what no HTML file may hold (control characters, half characters) as U+FFFD."""
    return _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", html)


def number(value: float) -> str:
    """Four significant digits, three below 1, an exponent where that is shorter."""
    if not math.isfinite(value):
        return NOT_FINITE
    size = abs(value)
    if size and not 1e-4 <= size < 1e9:
        return typeset(f"{value:.3g}")
    if size == int(size):
        return _fixed(value, 0)
    magnitude = math.floor(math.log10(size))
    return _fixed(value, max(0, 3 - magnitude if size >= 1 else 2 - magnitude))


def typeset(digits: str) -> str:
    """`digits` with real minus signs and an exponent without padding: 5e-06 -> 5e-6."""
    return re.sub(r"e([+-])0*", r"e\1", digits).replace("e+", "e").replace("-", MINUS)


def measure(value: float, unit: str) -> str:
    """`value` with its unit."""
    if not math.isfinite(value):
        return NOT_FINITE
    if unit == "%":
        return _fixed(100 * value, 1) + SPACE + "%"
    return number(value) + (SPACE + unit if unit else "")


def span(low: float, high: float, unit: str) -> str:
    """`low to high`, in the unit of `measure` but without naming it."""
    return f"{_bare(low, unit)} to {_bare(high, unit)}"


def signed(value: float, unit: str) -> str:
    """A difference without its unit, always with a sign; percentages differ by points."""
    sign = "+" if value > 0 else ""
    return sign + _bare(value, unit)


def signed_span(low: float, high: float, unit: str) -> str:
    return f"{signed(low, unit)} to {signed(high, unit)}"


def difference_unit(unit: str) -> str:
    return "points" if unit == "%" else unit


def percent(share: float) -> str:
    """0.95 -> 95 %, 0.999 -> 99.9 %."""
    return f"{100 * share:g}{SPACE}%"


def duration(seconds: float) -> str:
    """Two units at most: 0.8 s, 12 s, 3 min 20 s, 1 h 02 min, 2 d 3 h."""
    if not math.isfinite(seconds) or seconds < 0:
        return NOT_FINITE
    if seconds < 10:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}{SPACE}d {hours}{SPACE}h"
    if hours:
        return f"{hours}{SPACE}h {minutes:02}{SPACE}min"
    return f"{minutes}{SPACE}min {rest}{SPACE}s" if minutes else f"{rest}{SPACE}s"


def moment(iso: str) -> str:
    """2026-01-31 09:05 UTC, or the text itself where it is not a time."""
    try:
        time = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{time:%Y-%m-%d %H:%M} {time.tzname() or ''}".rstrip()


def inline(text: str) -> str:
    """`text` as one line of Markdown that is nothing but text."""
    plain = printable(" ".join(text.split()))
    escaped = "".join(f"\\{letter}" if letter in "\\`*|[]<>~" else letter for letter in plain)
    # At its start a list, a heading or a line could begin.
    return re.sub(r"^([#+=-]|\d+(?=[.)]))", _not_a_block, escaped)


def _not_a_block(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"


def shorten(text: str) -> str:
    """`text`, or its beginning and how much is left out."""
    left_out = len(text) - LONGEST_TEXT
    return f"{text[:LONGEST_TEXT]}… ({left_out:,} more characters)" if left_out > 0 else text


def web(url: str | None) -> str:
    """`url` if a browser may follow it, without user name and password; else nothing."""
    if not url or not re.fullmatch(r"https?://[^\s<>\"'`\\]+", url):
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def beside(path: str) -> str:
    """`path` if it is the page of a stage beside this one; else nothing."""
    return path if re.fullmatch(r"stages/[\w-]+/report\.html", path, re.ASCII) else ""


def _bare(value: float, unit: str) -> str:
    if unit == "%" and math.isfinite(value):
        return _fixed(100 * value, 1)
    return number(value)


def _fixed(value: float, places: int) -> str:
    # + 0.0 turns the -0.0 that rounding leaves into 0.0.
    return typeset(f"{round(value, places) + 0.0:,.{places}f}")
