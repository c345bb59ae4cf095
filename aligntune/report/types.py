"""What a report says, as data. Every text may come from a model or a dataset: none is trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from aligntune.data.report import DataReport

Verdict = Literal["better", "worse", "inconclusive", "differs"]
"""`differs` of what says how a model is and not how good."""


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
    headline: bool = True
    """Whether it is among the results at the top of the page."""


@dataclass(frozen=True, slots=True)
class Versus:
    """One model against one that was there before it, on the same prompts."""

    metric: str
    model: str
    difference: Difference
    p_value: float
    wins: int
    ties: int
    losses: int
    unit: str
    detectable: float | None = None
    """The true difference that so many prompts would show four times in five."""


@dataclass(frozen=True, slots=True)
class GateRow:
    """One condition of the decision about a candidate."""

    metric: str
    want: str
    """improvement, at least, or at most."""
    threshold: float
    against: str
    """What the improvement is over; empty for a value."""
    found: float
    low: float
    high: float
    """One-sided bounds."""
    state: str
    """held, missed, or open."""
    unit: str
    p_value: float | None


@dataclass(frozen=True, slots=True)
class RewardRow:
    """What one reward was in training: its mean over a step's answers."""

    stage: str
    name: str
    weight: float | None
    first: float
    last: float
    lowest: float
    highest: float
    spread: float
    """Standard deviation over the answers of the last step."""
    steps: int
    """Steps at which it was logged."""


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """What a model in training said to one prompt."""

    stage: str
    prompt: str
    answers: Mapping[int, str]
    """By step."""


@dataclass(frozen=True, slots=True)
class LineageRow:
    """One artifact with its neighbours, by label where they are of this run."""

    label: str
    artifact: str
    made_from: tuple[str, ...]
    went_into: tuple[str, ...]
    runs: tuple[str, ...]
    """Other runs that have it too."""


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
    versus: tuple[Versus, ...] = ()
    gates: tuple[GateRow, ...] = ()
    rewards: tuple[RewardRow, ...] = ()
    training_samples: tuple[TrainingSample, ...] = ()
    data_reports: tuple[tuple[str, DataReport], ...] = ()
    """What the data stages say of their sources, by label."""
    family: tuple[LineageRow, ...] = ()
    error: str = ""
    """What stopped the run; the report then holds what was finished."""
    decision: str = ""
    """What became of the candidate and why, in one sentence."""
