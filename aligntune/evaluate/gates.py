"""Gates: from the scores of a candidate and of what it is compared with to a decision.

Promote if every gate holds, reject if one is missed beyond doubt or the models do the same on every
prompt, else inconclusive. Gates that ask for an improvement share one error rate by Holm's
correction; a guard (a negative `min_delta`, a limit of a value) can only stop a promotion and has
its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from aligntune.config.evaluation import Gate
from aligntune.errors import ConfigError, unknown
from aligntune.evaluate.allowed import PER_TOKEN
from aligntune.evaluate.compare import Column, Resampling, by_prompt
from aligntune.evaluate.margin import Shift, holm, shift
from aligntune.evaluate.stats import binary, mean_interval

Verdict = Literal["promote", "reject", "inconclusive"]
State = Literal["held", "missed", "open"]
Want = Literal["improvement", "at least", "at most"]


@dataclass(frozen=True)
class Side:
    """One model's scores on the held-out rows."""

    columns: Mapping[str, Column]
    units: Sequence[int]
    """The prompt of each row."""


@dataclass(frozen=True)
class Test:
    """One condition of one gate, and what the scores say of it."""

    metric: str
    want: Want
    threshold: float
    against: str | None
    """What the improvement is over; None for a value."""
    confidence: float
    found: float
    """The improvement or the value."""
    low: float
    high: float
    """One-sided bounds at `confidence`."""
    state: State
    unit: str
    p_value: float | None = None
    """Of an improvement; adjusted by Holm where the gate is no guard."""
    detectable: float | None = None
    wins: int | None = None
    losses: int | None = None
    ties: int | None = None


@dataclass(frozen=True)
class Decision:
    verdict: Verdict
    why: str
    """One sentence with the numbers."""
    tests: tuple[Test, ...]


@dataclass(frozen=True)
class Judge:
    """What every test needs to know."""

    candidate: Side
    others: Mapping[str, Side]
    """By name: `base`, `champion`, stages."""
    higher_is_better: Mapping[str, bool]
    units: Mapping[str, str]
    quality: Sequence[str]
    """The metrics that say how good a model is, in order."""
    how: Resampling

    def decide(self, gates: Sequence[Gate]) -> Decision:
        """The decision by `gates`, or by the default rule where there are none."""
        if not gates:
            return self._by_default()
        tests = _corrected([test for gate in gates for test in self._tests(gate)])
        if missed := [test for test in tests if test.state == "missed"]:
            return Decision("reject", _sentence("a gate is missed", missed), tuple(tests))
        if open_ := [test for test in tests if test.state == "open"]:
            return Decision("inconclusive", _sentence("a gate is open", open_), tuple(tests))
        return Decision("promote", _sentence("every gate holds", tests), tuple(tests))

    def _by_default(self) -> Decision:
        """Better on at least one quality metric, worse on none."""
        against = self._other("champion")
        shared = [name for name in self.quality if name in self.others[against].columns]
        if not shared:
            return Decision("inconclusive", f"{against} shares no quality metric with it", ())
        shifts = {name: self._shift(name, against, 0.0, self.how.confidence) for name in shared}
        raw = [
            _improvement(name, against, 0.0, self.how.confidence, found, self.units[name])
            for name, found in shifts.items()
        ]
        tests = _corrected(raw)
        level = 1 - self.how.confidence
        worse = [t for t in tests if shifts[t.metric].p_below <= level and t.high < 0]
        better = [test for test in tests if test.state == "held"]
        if all(map(_equal, tests)):
            return Decision("reject", _sentence("the same on every prompt", tests), tuple(tests))
        if worse:
            return Decision("reject", _sentence("worse", worse), tuple(tests))
        if better:
            return Decision("promote", _sentence("better", better), tuple(tests))
        return Decision("inconclusive", _sentence("no difference was shown", tests), tuple(tests))

    def _tests(self, gate: Gate) -> Iterator[Test]:
        confidence = gate.confidence or self.how.confidence
        if gate.metric not in self.candidate.columns:
            known = self.candidate.columns
            raise ConfigError(f"registry.gates: {unknown('metric', gate.metric, known)}")
        limits = gate.min_value, gate.max_value
        if gate.min_delta is not None or limits == (None, None):
            against, margin = self._other(gate.against), gate.min_delta or 0.0
            if gate.metric not in self.others[against].columns:
                same = " in the same tokens" if gate.metric in PER_TOKEN else ""
                raise ConfigError(
                    f"registry.gates: {against} has no {gate.metric!r}{same} to compare with; "
                    "limit its value with max_value, or gate another metric"
                )
            found = self._shift(gate.metric, against, margin, confidence)
            unit = self.units[gate.metric]
            yield _improvement(gate.metric, against, margin, confidence, found, unit)
        for want, limit in (("at least", gate.min_value), ("at most", gate.max_value)):
            if limit is not None:
                yield self._value(gate.metric, want, limit, confidence)  # type: ignore[arg-type]

    def _other(self, against: str) -> str:
        name = "base" if against == "champion" and "champion" not in self.others else against
        if name not in self.others:
            raise ConfigError(f"registry.gates: {unknown('model', name, self.others)}")
        return name

    def _shift(self, metric: str, against: str, margin: float, confidence: float) -> Shift:
        own, other = by_prompt(
            self.candidate.units,
            self.candidate.columns[metric],
            self.others[against].columns[metric],
        )
        return shift(
            own,
            other,
            margin=margin,
            confidence=confidence,
            resamples=self.how.resamples,
            seed=self.how.seed,
            higher_is_better=self.higher_is_better[metric],
        )

    def _value(self, metric: str, want: Want, limit: float, confidence: float) -> Test:
        (scores,) = by_prompt(self.candidate.units, self.candidate.columns[metric])
        # Both ends of an interval at 2c - 1 are one-sided bounds at c.
        interval = mean_interval(
            scores,
            confidence=2 * confidence - 1,
            resamples=self.how.resamples,
            seed=self.how.seed,
        )
        sign = 1 if want == "at least" else -1
        sure, possible = sorted((sign * interval.low, sign * interval.high))
        state: State = "open"
        wide = interval.count > 1 or binary(scores)  # that of another single score has no width
        if wide and sure >= sign * limit:
            state = "held"
        elif wide and possible < sign * limit:
            state = "missed"
        return Test(
            metric, want, limit, None, confidence, interval.mean, interval.low, interval.high,
            state, self.units[metric],
        )  # fmt: skip


def _improvement(
    metric: str, against: str, margin: float, confidence: float, found: Shift, unit: str
) -> Test:
    missed = found.p_below <= 1 - confidence and found.high < margin
    # Equal on every prompt is no improvement, however few prompts say so.
    missed |= margin >= 0 and not found.wins and not found.losses
    return Test(
        metric=metric,
        want="improvement",
        threshold=margin,
        against=against,
        confidence=confidence,
        found=found.improvement,
        low=found.low,
        high=found.high,
        state="missed" if missed else "open",
        unit=unit,
        p_value=found.p_above,
        detectable=found.detectable,
        wins=found.wins,
        losses=found.losses,
        ties=found.ties,
    )


def _equal(test: Test) -> bool:
    return not test.wins and not test.losses


def _corrected(tests: Sequence[Test]) -> list[Test]:
    """The tests of improvements with their final p-values, and those held that these allow."""
    claims = [at for at, t in enumerate(tests) if t.p_value is not None and t.threshold >= 0]
    adjusted = holm([p for at in claims if (p := tests[at].p_value) is not None])
    p_values = dict(zip(claims, adjusted, strict=True))
    done = []
    for at, test in enumerate(tests):
        p_value = p_values.get(at, test.p_value)
        if test.want == "improvement" and p_value is not None:
            sure = p_value <= 1 - test.confidence and test.low > test.threshold
            test = replace(test, p_value=p_value, state="held" if sure else test.state)
        done.append(test)
    return done


def _sentence(what: str, tests: Sequence[Test]) -> str:
    return f"{what}: {'; '.join(map(_said, tests))}"


def _said(test: Test) -> str:
    """`exact_match 3 points better than champion (bounds -1.2 to +7.2, needs more than 0, p =
    0.12)`: improvements, whichever direction the metric has."""
    points = test.unit == "%"
    scale, unit = (100, " points") if points else (1, f" {test.unit}" if test.unit else "")
    if test.want != "improvement":
        shown = " %" if points else unit
        return (
            f"{test.metric} {scale * test.found:.4g}{shown} (bounds {scale * test.low:.4g} to "
            f"{scale * test.high:.4g}, needs {test.want} {scale * test.threshold:.4g})"
        )
    return (
        f"{test.metric} {_difference(scale * test.found, unit)} {test.against} (bounds "
        f"{_signed(scale * test.low)} to {_signed(scale * test.high)}, needs more than "
        f"{_signed(scale * test.threshold)}, p = {test.p_value:.3g})"
    )


def _difference(improvement: float, unit: str) -> str:
    if not improvement:
        return "the same as"
    return f"{abs(improvement):.4g}{unit} {'better' if improvement > 0 else 'worse'} than"


def _signed(value: float) -> str:
    return f"{value:+.4g}" if value else "0"
