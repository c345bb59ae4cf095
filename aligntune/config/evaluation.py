"""How models are measured, and where the measured ones are registered."""

from typing import Literal

from pydantic import Field

from aligntune.config.base import NeutralField, Strict
from aligntune.config.data import Dataset

Metric = Literal["exact_match", "nll", "preference_accuracy"]


class Evaluation(Strict):
    datasets: tuple[Dataset, ...] = ()
    """Held-out data. Default: `heldout_fraction` of the run's own datasets, kept from training."""
    heldout_fraction: float = Field(0.05, gt=0, lt=1)
    """Share of prompts kept from training when `datasets` is not given."""
    max_samples: int = Field(256, ge=1)
    """At most this many held-out rows."""
    metrics: tuple[Metric, ...] = ()
    """What to compute. Default: every metric that the held-out rows allow."""
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


class Registry(Strict):
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Registered models are called `<name>.policy`. Default: the run's name."""
