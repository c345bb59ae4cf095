"""What each stage reads of a run's config: its own slice and nothing else.

A stage's key digests its slice, so a field that a stage does not read must not be in it.
"""

from typing import Literal

from aligntune.config.algo import Trained
from aligntune.config.base import NeutralField, Strict
from aligntune.config.data import Cleaning, Dataset, Mix, TaskType
from aligntune.config.evaluation import Gate, LmEval, Metric, Promotion
from aligntune.config.logging import Logger, SampleLogging
from aligntune.config.model import Attention, Precision, Quantization
from aligntune.config.reward_model import Objective
from aligntune.config.rewards import Reward
from aligntune.config.train import Peft, Train

ROWS_SEED = 42
"""Of which rows are sampled and held out, and of the order of these, whatever a run's own seed is:
another one would measure the champion on rows that it has learned, and no two runs on the same."""


class ModelSlice(Strict):
    name_or_path: str
    revision: str | None
    chat_template: str | None
    trust_remote_code: bool


class DataSlice(Strict):
    datasets: tuple[Dataset, ...]
    task: TaskType | None
    """The canonical row type to make; None takes what each source is."""
    heldout_fraction: float
    """Share of prompts that goes to `heldout.parquet` and not to `train.parquet`; may be 0."""
    max_heldout: int
    """At most this many held-out rows."""
    cleaning: Cleaning
    mix: Mix
    max_length: int | None
    """In tokens. None: the rows are not tokenised."""
    cut: Literal["start", "end"] = "end"
    """Where rows that are longer lose what is too much."""
    trust_remote_code: bool
    workers: NeutralField[int]
    seed: int


class TrainSlice(Strict):
    algo: Trained
    objective: Objective | None = None
    """Of a reward model; None for policies."""
    train: Train
    """Resolved: what the algorithm has is filled in, the rest is left out."""
    rewards: tuple[Reward, ...]
    """What an online algorithm optimises; empty for the others."""
    peft: Peft | None
    precision: Precision
    gradient_checkpointing: Literal["auto"] | bool
    """`auto` stays in the key: what it is here is decided when the stage starts."""
    attn_implementation: Attention | None
    quantization: Quantization | None
    use_unsloth: bool
    trust_remote_code: bool
    processes: int
    """That train together, each with a batch of its own."""
    seed: int
    load_best: int | None
    """Optimizer steps between the checkpoints of which the best is kept; None keeps the last."""
    save_steps: NeutralField[int]
    eval_steps: NeutralField[int | None]
    loggers: NeutralField[tuple[Logger, ...]]
    sample_logging: NeutralField[SampleLogging | None]
    shown_rewards: NeutralField[tuple[Reward, ...]] = ()
    """What scores the logged samples of an algorithm that optimises no reward."""


class ReferenceSlice(Strict):
    """What the log-probabilities of DPO's reference depend on besides the model and the tokens:
    nothing of the loss or of the steps, so that runs which differ there share them."""

    max_length: int
    """In tokens; what is longer is cut, as in training."""
    precision: Precision
    attn_implementation: Attention | None
    quantization: Quantization | None
    trust_remote_code: bool
    lm_head: Literal["auto", "plain", "chunked"]
    padding_free: Literal["auto"] | bool
    processes: NeutralField[int]


class EvaluateSlice(Strict):
    split: Literal["train", "heldout"]
    """Which file of the data artifact to measure on."""
    max_samples: int
    metrics: tuple[Metric, ...]
    rewards: tuple[Reward, ...]
    lm_eval: LmEval | None = None
    max_new_tokens: int
    batch_size: int
    max_length: int
    """Longest sequence in tokens that is scored."""
    confidence: float
    resamples: int
    precision: Precision
    trust_remote_code: bool
    seed: int


class RegisterSlice(Strict):
    name: str
    """Registered model, `<name>.policy`."""
    tracking_uri: str
    """The registry lives outside the artifacts, so another registry means another stage."""


class FetchSlice(Strict):
    """A version in the registry."""

    name: str
    version: str
    key: str
    """Of the stage that trained it, or where it comes from: versions are numbers that a new
    registry gives again."""
    tracking_uri: str


class DecideSlice(Strict):
    candidate: str
    """The stage whose model is the candidate; its evaluation is among the inputs."""
    champion: str | None
    """The version that the evaluation of the champion is of; None where there is no champion."""
    champion_key: str | None
    gates: tuple[Gate, ...]
    confidence: float
    resamples: int
    seed: int


class PromoteSlice(Strict):
    name: str
    candidate: str
    """The stage whose version is the candidate."""
    policy: Promotion
    tracking_uri: str


class PushSlice(Strict):
    hub_model_id: str
    adapter_of: str | None
    """The hub model that the pushed adapter is for; None pushes the whole model."""
    private: bool
    license: str | None
    endpoint: str
