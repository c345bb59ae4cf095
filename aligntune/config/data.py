"""Where rows come from, and what becomes of them before training."""

from typing import Any, Literal

from pydantic import Field

from aligntune.config.base import Strict

TaskType = Literal["conversation", "preference", "unpaired", "prompt"]
"""The canonical row types: a conversation to imitate, a pair to prefer in, an answer that is good
or bad, a prompt to answer."""


class Dataset(Strict):
    name: str = Field(min_length=1)
    """A hub id; a local file, directory or glob (json, jsonl, csv, tsv, parquet, arrow; gz, zst);
    the URL of such a file (`s3://...`); a procedural source (`arithmetic:`,
    `reasoning_gym:<task>`); the dataset of an MLflow run (`mlflow:<run id>/<dataset>`); or
    `module:function` that yields rows."""
    subset: str | None = None
    """The hub dataset's configuration (`main` of `openai/gsm8k`), or a folder or file in it."""
    split: str = "train"
    """The split to read, or a slice of it (`train[:10%]`). A file is one split, so for files this
    must be `train`."""
    revision: str | None = Field(None, min_length=1)
    """Branch, tag or commit of a hub dataset; whatever it names, the commit is pinned."""
    streaming: bool = False
    """Take `max_samples` rows of a huge hub dataset without downloading all of it: a random
    sample of what comes first, the same for every `seed`."""
    percent: float = Field(100, gt=0, le=100)
    """Share of the rows to use, a random sample that is the same for every `seed`."""
    max_samples: int | None = Field(None, ge=1)
    """At most this many rows, such a sample, taken after `percent`."""
    task_type: TaskType | None = None
    """What the rows are, where their columns can be read in several ways; a training stage then
    makes of them what it needs. For `evaluation.datasets`: the row type to measure on."""
    format: str | None = None
    """The layout of the rows (`alpaca`, `messages`, `transcripts`, ...). Default: what the columns
    look like."""
    columns: dict[str, str] = Field(default_factory=dict)
    """New name -> the dataset's column, applied before a row is read."""
    weight: float = Field(1.0, gt=0)
    """Relative sampling weight among several datasets; equal weights concatenate."""
    eval_fraction: float | None = Field(None, ge=0, lt=1)
    """Share of this source's prompts kept from training. Default: `evaluation.heldout_fraction`."""
    eval_split: str | None = None
    """A split of the same dataset to hold out instead of a share of this one."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Settings of a procedural source."""


Sameness = Literal["prompt", "row", "keep"]


class Cleaning(Strict):
    """What happens to rows that should not be trained on."""

    on_invalid: Literal["error", "drop"] = "drop"
    """Rows that cannot be read or are not what they should be: `error` stops the run at the first
    source that has one, `drop` leaves out up to `max_invalid` of a source."""
    max_invalid: float = Field(0.01, ge=0, le=1)
    """Share of a source's rows that may be dropped as invalid."""
    duplicates: Sameness | None = None
    """What makes a row the duplicate of an earlier one of any source, letter case and spaces
    aside: the same prompt, or the same prompt and answers. Default: `prompt`, but `row` for pairs
    and rated answers, where a prompt recurs with other answers."""
    near_duplicates: float | None = Field(None, gt=0, lt=1)
    """Drop rows whose text is at least this similar to an earlier one's (Jaccard similarity of word
    5-grams, by MinHash). Default: not looked for."""
    decontaminate: int | None = Field(13, ge=3)
    """Drop training rows that share this many words in a row with an evaluation prompt. null: none
    is dropped."""
    too_long: Literal["truncate", "drop"] = "truncate"
    """Training rows of more than `max_length` tokens: cut them, or leave them out. A row that would
    lose its whole answer is always left out."""


class Mix(Strict):
    """How several sources become one training set."""

    repeat: bool = False
    """With unequal weights: repeat small sources until the largest total that some source can give
    at its weight is reached, instead of using less of the large ones."""
