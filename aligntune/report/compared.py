"""What a comparison of runs says, as data. Every text may come from a model or a dataset: none is
trusted. A run is named by its place among `runs`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aligntune.report.types import Verdict


@dataclass(frozen=True, slots=True)
class RunColumn:
    letter: str
    """A, B, ... Z, A1, ...: what stands for it where there is little room."""
    name: str
    algo: str
    model: str
    when: str
    state: str
    version: str
    """In the registry, `v3 (candidate)`; empty where it is not there."""
    decision: str = ""
    """promote, reject or inconclusive; empty where nothing was decided."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A setting in which runs differ."""

    key: str
    values: tuple[str | None, ...]
    """By run; None where it is not set. Of a whole section, a line per setting."""


@dataclass(frozen=True, slots=True)
class DataSide:
    rows: int
    digest: str
    sources: str


@dataclass(frozen=True, slots=True)
class DataChange:
    """One split of one data stage."""

    label: str
    split: str
    sides: tuple[DataSide | None, ...]
    same: bool


@dataclass(frozen=True, slots=True)
class StageChange:
    label: str
    artifacts: tuple[str | None, ...]
    """`<kind>-<key>` by run; None where the run has no such stage."""
    same: bool
    why: str
    """What made the others other than the first, as far as it is known."""


@dataclass(frozen=True, slots=True)
class Paired:
    """A run minus the first one, by prompt."""

    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float
    """The p-value after Holm's correction for all metrics that say how good a model is; of others
    the same."""
    wins: int
    ties: int
    losses: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one run's result."""

    metric: str
    run: int
    mean: float
    low: float
    high: float
    count: int
    higher_is_better: bool
    unit: str
    diagnostic: bool = False
    """Says how a model is and not how good."""
    paired: Paired | None = None


@dataclass(frozen=True, slots=True)
class Line:
    runs: tuple[int, ...]
    """Those whose stage it is: runs can share one."""
    steps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Overlay:
    """One training metric of several runs."""

    stage: str
    metric: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """One run's answer."""

    text: str | None
    scores: Mapping[str, float]
    """By metric."""


@dataclass(frozen=True, slots=True)
class Asked:
    prompt: Sequence[Mapping[str, str]]
    reference: str | None
    answers: Mapping[int, Given]
    """By run."""


@dataclass(frozen=True, slots=True)
class Comparison:
    runs: tuple[RunColumn, ...]
    config: tuple[Change, ...]
    data: tuple[DataChange, ...]
    stages: tuple[StageChange, ...]
    scores: tuple[Score, ...]
    overlays: tuple[Overlay, ...]
    first: tuple[Asked, ...]
    """The first prompts."""
    apart: tuple[Asked, ...]
    """The prompts on which the answers differ most, the furthest apart first."""
    notes: tuple[str, ...]
    """Sentences on what could not be compared, and why."""
    confidence: float
    tests: int
    """How many p-values Holm's correction is for."""
