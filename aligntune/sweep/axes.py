"""What `--set` means in a sweep: one value as in any run, several, or a range to draw from.

train.beta=0.05,0.1,0.3              several: every combination, or some of them with --random
peft.target_modules=[q_proj],[k_proj,v_proj]    several lists: a comma in brackets is the list's
'model.chat_template="{a},{b}"'      one text with a comma
train.learning_rate=log:1e-6..1e-4   drawn by its logarithm, for --random and --optuna
train.beta=uniform:0.01..0.5         drawn from an interval
peft.r=int:4..64                     drawn from whole numbers, both ends included
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from aligntune.errors import ConfigError

_RANGE = re.compile(r"(uniform|log|int):(.*)")
_OPENING, _CLOSING = "[{", "]}"
OWN = {
    "logging.run_name": "each run is called after its settings; --run-name says how it begins",
    "logging.output_dir": "the runs share their stages in one directory",
    "logging.sweep": "it is the name of the sweep",
    "logging.push_to_hub": "a sweep pushes nothing",
    "registry": "the best run alone is registered",
    "evaluation": "runs are compared by what is measured on the same rows in the same way",
}
"""Settings and sections that cannot be varied, and why."""


@dataclass(frozen=True)
class Span:
    """Numbers between `low` and `high`, ends included."""

    kind: Literal["uniform", "log", "int"]
    low: float
    high: float

    @property
    def count(self) -> float:
        return self.high - self.low + 1 if self.kind == "int" else math.inf

    def draw(self, random: Random) -> str:
        if self.kind == "int":
            return str(random.randint(int(self.low), int(self.high)))
        if self.kind == "uniform":
            return self.text(random.uniform(self.low, self.high))
        return self.text(math.exp(random.uniform(math.log(self.low), math.log(self.high))))

    def text(self, value: float) -> str:
        """`value` as a setting, to four digits of what varies: names stay short."""
        if self.kind == "int":
            return str(int(value))
        same = math.log10(max(abs(self.low), abs(self.high)) / (self.high - self.low))
        digits = 4 + max(0, math.floor(same))
        return repr(min(max(float(f"{value:.{digits}g}"), self.low), self.high))

    @property
    def ends(self) -> tuple[str, ...]:
        return self.text(self.low), self.text(self.high)


@dataclass(frozen=True)
class Axis:
    """A setting that is varied."""

    key: str
    values: tuple[str, ...]
    """As they are written; none of a range."""
    span: Span | None = None

    @property
    def count(self) -> float:
        return self.span.count if self.span else len(self.values)

    @property
    def probes(self) -> tuple[str, ...]:
        """Values that stand for all."""
        return self.span.ends if self.span else self.values

    def draw(self, random: Random) -> str:
        return self.span.draw(random) if self.span else random.choice(self.values)


@dataclass(frozen=True)
class Space:
    axes: tuple[Axis, ...]
    fixed: tuple[str, ...]
    """Overrides with one value."""


def space(overrides: Sequence[str]) -> Space:
    """What varies and what does not.

    Raises:
        ConfigError: nothing varies, or a value is malformed, missing, or of a setting that a sweep
            cannot vary.
    """
    axes: list[Axis] = []
    fixed: list[str] = []
    for override in overrides:
        axis = _axis(override)
        if axis is None:
            fixed.append(override)
        else:
            axes.append(axis)
    if not axes:
        raise ConfigError(
            "nothing varies; give a setting several values, such as --set train.beta=0.05,0.1,0.3, "
            "or a range, such as --set train.learning_rate=log:1e-6..1e-4 with --random 8"
        )
    keys = [_key(override) for override in overrides]
    for axis in axes:
        if keys.count(axis.key) > 1:
            raise ConfigError(f"{axis.key} is given {keys.count(axis.key)} times; name it once")
    return Space(tuple(axes), tuple(fixed))


def _key(override: str) -> str:
    """`a.b` of `a.b=c` and of `--flag a.b=c`."""
    return override.partition("=")[0].split(" ")[-1].strip()


def _axis(override: str) -> Axis | None:
    key, (_, _, text) = _key(override), override.partition("=")
    found = _RANGE.fullmatch(text.strip())
    values = () if found else tuple(value.strip() for value in split(text))
    if not found and len(values) == 1:
        return None
    for own, why in OWN.items():
        if key == own or key.startswith(f"{own}."):
            raise ConfigError(f"--set {key}=...: a sweep cannot vary this: {why}")
    if found:
        return Axis(key, (), _span(key, found[1], found[2]))
    if not all(values):
        raise ConfigError(f"--set {key}={text}: a value is missing beside a comma; add or drop it")
    return Axis(key, tuple(dict.fromkeys(values)))


def split(text: str) -> Iterator[str]:
    """The parts of `text` between the commas that stand in no brackets and no quotes."""
    depth, quote, start = 0, "", 0
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and text[start:at].rstrip()[-1:] in ("", "[", "{", ",", ":"):
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character == "," and depth <= 0:
            yield text[start:at]
            start = at + 1
    yield text[start:]


def _span(key: str, kind: str, text: str) -> Span:
    given = f"--set {key}={kind}:{text}"
    low, dots, high = text.partition("..")
    try:
        span = Span(kind, float(low), float(high))  # type: ignore[arg-type]
    except ValueError:
        dots = ""
    if not dots or not math.isfinite(span.high - span.low):
        raise ConfigError(f"{given}: this is no range; write {kind}:LOW..HIGH, such as {kind}:1..8")
    if span.low >= span.high:
        raise ConfigError(f"{given}: the first number has to be the smaller one")
    if kind == "log" and span.low <= 0:
        raise ConfigError(f"{given}: a logarithm is of numbers above 0; start above it")
    if kind == "int" and not (span.low.is_integer() and span.high.is_integer()):
        raise ConfigError(f"{given}: these are no whole numbers; use uniform:")
    return span
