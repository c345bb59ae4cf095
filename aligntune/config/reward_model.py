"""A reward model that the run trains before its own algorithm."""

from typing import Literal

from pydantic import Field

from aligntune.config.base import Strict
from aligntune.config.data import Dataset, TaskType
from aligntune.config.train import Peft, Train

Objective = Literal["bradley_terry", "regression"]


class RewardModelSection(Strict):
    """A reward model, trained on preferences or scores. The run's algorithm optimises its score;
    an item `reward_type: model` of `rewards` without a `model_name` says where among them and with
    what weight, else it is added with weight 1."""

    name_or_path: str | None = Field(None, min_length=1)
    """What it is made of: a generative model, which gets a head with one output, or a
    classification model. Default: the model that the run starts from."""
    revision: str | None = None
    """Branch, tag or commit of that hub model."""
    objective: Objective = "bradley_terry"
    """Learn from pairs which answer is better, or from rows with a `score` what it is."""
    datasets: tuple[Dataset, ...] = Field(min_length=1)
    """Its data: pairs, or conversations with a column `score`. A share of each is always held out,
    to measure it on: `eval_split`, `eval_fraction`, else `evaluation.heldout_fraction`."""
    train: Train = Field(default_factory=Train)
    """Its hyper-parameters; nothing is inherited from the run's `train`. What is longer than
    `max_length` loses its start."""
    peft: Peft | None = None
    """Its adapter; default: the run's `peft`. The head is trained in full."""
    normalize: bool = True
    """Bring its scores to mean 0 and standard deviation 1 on held-out reference answers (the chosen
    ones of pairs), which makes `weight` and `kl_coef` comparable between reward models."""

    @property
    def rows(self) -> TaskType:
        """What it learns from."""
        return "preference" if self.objective == "bradley_terry" else "conversation"
