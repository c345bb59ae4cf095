"""A whole run."""

from typing import Any

from pydantic import Field

from aligntune.config.algo import AlgoField
from aligntune.config.base import Strict
from aligntune.config.data import Cleaning, Dataset, Mix
from aligntune.config.evaluation import Evaluation, Registry
from aligntune.config.logging import Launch, Logging, SampleLogging
from aligntune.config.model import Model
from aligntune.config.reward_model import RewardModelSection
from aligntune.config.rewards import Reward
from aligntune.config.schedule import Deployment, Notification, Retrain, Schedule
from aligntune.config.train import Peft, SftSection, Train


class RunConfig(Strict):
    algo: AlgoField
    """The last training stage; other common spellings of the names are understood."""
    model: Model
    datasets: tuple[Dataset, ...] = Field(min_length=1)
    """Data of the `algo` stage."""
    cleaning: Cleaning = Field(default_factory=Cleaning)
    """For the datasets of every stage."""
    mix: Mix = Field(default_factory=Mix)
    train: Train = Field(default_factory=Train)
    """Hyper-parameters of the `algo` stage."""
    peft: Peft | None = None
    """LoRA for every training stage; without it all weights are trained."""
    rewards: tuple[Reward, ...] = ()
    """Online algorithms: what is optimised. The others: what evaluation reports beside its
    metrics."""
    sft: SftSection | None = None
    """Supervised fine-tuning before `algo`."""
    reward_model: RewardModelSection | None = None
    """A reward model to train before `algo`, which optimises its score; `model.reward_path` is one
    that exists already."""
    evaluation: Evaluation = Field(default_factory=Evaluation)
    registry: Registry = Field(default_factory=Registry)
    launch: Launch = Field(default_factory=Launch)
    logging: Logging = Field(default_factory=Logging)
    sample_logging: SampleLogging | None = None
    retrain: Retrain = Field(default_factory=Retrain)
    deployment: Deployment = Field(default_factory=Deployment)
    schedules: tuple[Schedule, ...] = ()
    """When the deployment of this config runs."""
    notifications: tuple[Notification, ...] = ()
    """Who is told how a retraining ended."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Seeds sampling, shuffling, initialisation and dropout of every stage; which rows are taken of
    a dataset, and which are held out, does not depend on it."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a config file, with the docstrings as descriptions."""
    schema = RunConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "aligntune"} | {
        key: value for key, value in schema.items() if key != "title"
    }
