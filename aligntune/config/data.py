"""Where rows come from."""

from typing import Any, Literal

from pydantic import Field

from aligntune.config.base import Strict

TaskType = Literal["conversation", "preference", "prompt"]
"""The canonical row types: a conversation to imitate, a pair to prefer in, a prompt to answer."""


class Dataset(Strict):
    name: str = Field(min_length=1)
    """A hub id, a local json, jsonl, csv or parquet file, or a procedural source
    (`arithmetic:`, `reasoning_gym:<task>`)."""
    subset: str | None = None
    """The hub dataset's configuration (`main` of `openai/gsm8k`)."""
    split: str = "train"
    """The split to read. A file is one split, so for files this must be `train`."""
    revision: str | None = None
    """Branch, tag or commit of a hub dataset; whatever it names, the commit is pinned."""
    percent: float = Field(100, gt=0, le=100)
    """Share of the rows to use, a seeded sample."""
    max_samples: int | None = Field(None, ge=1)
    """At most this many rows, a seeded sample taken after `percent`."""
    task_type: TaskType | None = None
    """What the rows are, where their columns can be read in several ways; a training stage then
    makes of them what it needs. For `evaluation.datasets`: the row type to measure on."""
    columns: dict[str, str] = Field(default_factory=dict)
    """New name -> the dataset's column, applied before a row is read."""
    weight: float = Field(1.0, gt=0)
    """Relative sampling weight among several datasets; equal weights concatenate."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Settings of a procedural source."""
