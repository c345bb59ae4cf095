"""What a report says, as data. Every text may come from a model or a dataset: none is trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["better", "worse", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Link:
    label: str
    url: str
    """Becomes a link if it is http or https, without any password in it; else it is not shown."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the lineage: base model and revision, registered version, code, packages."""

    name: str
    value: str
    url: str | None = None


@dataclass(frozen=True, slots=True)
class DataRow:
    """One split of one data artifact."""

    source: str
    split: str
    rows: int
    digest: str
    note: str = ""
    """Anything else worth a line: a hub commit, how many rows were dropped and why."""
    page: str = ""
    """The data report, `stages/<label>/report.html` from this one; anything else is no link."""


@dataclass(frozen=True, slots=True)
class StageRow:
    label: str
    kind: str
    key: str
    state: Literal["run", "reused"]
    why: str
    """Why it ran, or what it was reused from."""
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    mlflow_url: str | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A training metric by step. Values that are not finite are gaps, and are counted."""

    stage: str
    metric: str
    steps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Difference:
    """Paired, this model minus another, in the metric's own unit."""

    mean: float
    low: float
    high: float
    verdict: Verdict
    against: str = "base"


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One metric of one model. Models are shown in the order in which they first appear."""

    metric: str
    model: str
    mean: float
    low: float
    high: float
    count: int
    """Prompts or pairs measured."""
    higher_is_better: bool
    unit: str = ""
    """`%`: the numbers are shares of 1 and shown as percent. Else it is written after them."""
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    correct: bool | None = None
    """None where nothing says what is right."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    prompt: Sequence[Mapping[str, str]]
    """Messages as in canonical rows, `{"role", "content"}`."""
    answers: Mapping[str, Answer]
    """By model label, in the order of training."""
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    title: str
    """The run's name."""
    command: str
    """What makes this run again."""
    config_yaml: str
    started: str
    finished: str
    """ISO 8601, as in manifests."""
    seconds: float
    stages: tuple[StageRow, ...]
    evaluations: tuple[EvaluationRow, ...] = ()
    """The headline compares the first with the last model of each metric."""
    samples: tuple[SampleRow, ...] = ()
    curves: tuple[Curve, ...] = ()
    data: tuple[DataRow, ...] = ()
    lineage: tuple[Fact, ...] = ()
    links: tuple[Link, ...] = ()
    """Where else to look: MLflow run, registered model, hub repository."""
    confidence: float = 0.95
    """Level of every interval."""
