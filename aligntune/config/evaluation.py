"""How models are measured, and where the measured ones are registered."""

from typing import Literal

from pydantic import Field

from aligntune.config.base import NeutralField, Strict
from aligntune.config.data import Dataset

Metric = Literal[
    "exact_match",
    "nll",
    "perplexity",
    "preference_accuracy",
    "preference_margin",
    "answer_tokens",
    "finished_rate",
    "distinct_1",
    "distinct_2",
    "refusal_rate",
    "kl_to_base",
]


class LmEval(Strict):
    """Tasks of EleutherAI's lm-evaluation-harness, which is the extra `lm-eval`. Their metrics are
    called `lm_eval/<task>/<metric>`."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of tasks and groups, as the harness has them or as `include_path` adds them."""
    include_path: str | None = Field(None, min_length=1)
    """A directory with task files of your own; Python that they name is run."""
    limit: int | None = Field(None, ge=1)
    """At most so many documents of each task, from the first."""
    num_fewshot: int | None = Field(None, ge=0)
    """Examples before each question. Default: the task's own."""
    apply_chat_template: bool = True
    """Ask in the model's chat template, where it has one."""


class Evaluation(Strict):
    datasets: tuple[Dataset, ...] = ()
    """Held-out data. Default: `heldout_fraction` of the run's own datasets, kept from training."""
    heldout_fraction: float = Field(0.05, gt=0, lt=1)
    """Share of prompts kept from training when `datasets` is not given."""
    max_samples: int = Field(256, ge=1)
    """At most this many held-out rows."""
    metrics: tuple[Metric, ...] = ()
    """What to compute. Default: every metric that the held-out rows allow; those that only
    describe answers then take the ones that are generated anyway."""
    lm_eval: LmEval | None = None
    """Tasks of the lm-evaluation-harness to run besides."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest answer in tokens; answers are greedy."""
    batch_size: int = Field(16, ge=1)
    """Prompts per forward pass."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Level of every interval."""
    resamples: int = Field(10_000, ge=100)
    """Bootstrap resamples, by prompt."""
    sample_count: NeutralField[int] = Field(8, ge=0)
    """Answers of base and trained models shown side by side in the report."""


class Gate(Strict):
    """What a candidate has to show before it replaces the champion."""

    metric: str = Field(min_length=1)
    """A metric that is measured: exact_match, nll, rewards/length, ..."""
    against: str = "champion"
    """What it is compared with: champion, base, or a training stage of the run such as sft. Where
    there is no champion yet, base takes its place."""
    min_delta: float | None = None
    """The improvement must be larger than this, in the metric's own unit and in its good
    direction; -0.02 allows a loss of two points. Default: 0 where no value is limited."""
    min_value: float | None = None
    """The metric itself must be at least this."""
    max_value: float | None = None
    """The metric itself must be at most this."""
    confidence: float | None = Field(None, gt=0.5, lt=1)
    """How sure it has to be, one-sided. Default: `evaluation.confidence`."""


Promotion = Literal["auto", "manual", "never"]


class Registry(Strict):
    enabled: bool = True
    """Register the trained models, which keeps a copy of them in MLflow, and decide which is the
    champion. Without it a run ends with its evaluation."""
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Registered models are called `<name>.policy`. Default: the name of the model that training
    starts from."""
    promote: Promotion = "auto"
    """auto: a candidate that passes becomes the champion. manual: the decision is recorded and
    `aligntune promote` makes it champion. never: nothing is compared with the champion."""
    gates: tuple[Gate, ...] = ()
    """All must hold. Default: better than the champion on at least one quality metric (Holm's
    correction over all of them), worse on none."""

    @property
    def promotes(self) -> bool:
        """Whether it is decided if the candidate replaces the champion."""
        return self.enabled and self.promote != "never"
