"""A whole run."""

from typing import Self

from pydantic import Field, model_validator

from aligntune.config.base import Strict
from aligntune.config.data import Dataset
from aligntune.config.evaluation import Evaluation, Registry
from aligntune.config.logging import Launch, Logging
from aligntune.config.model import Model
from aligntune.config.train import Algo, Peft, SftSection, Train


class RunConfig(Strict):
    algo: Algo
    """The last training stage."""
    model: Model
    datasets: tuple[Dataset, ...] = Field(min_length=1)
    """Data of the `algo` stage."""
    train: Train = Train()
    """Hyper-parameters of the `algo` stage."""
    peft: Peft | None = None
    """LoRA for every training stage; without it all weights are trained."""
    sft: SftSection | None = None
    """Supervised fine-tuning before `algo`."""
    evaluation: Evaluation = Evaluation()
    registry: Registry = Registry()
    launch: Launch = Launch()
    logging: Logging = Logging()
    seed: int = Field(42, ge=0, lt=2**32)
    """Seeds sampling, shuffling, initialisation and dropout of every stage."""

    @model_validator(mode="after")
    def _one_sft(self) -> Self:
        if self.algo == "sft" and self.sft:
            raise ValueError(
                "`algo: sft` with an `sft` section would train sft twice; put its settings in "
                "`datasets` and `train`, or choose another `algo`"
            )
        return self

    @model_validator(mode="after")
    def _push_needs_a_repository(self) -> Self:
        if self.logging.push_to_hub and not self.logging.hub_model_id:
            raise ValueError("`logging.push_to_hub: true` needs `logging.hub_model_id: owner/name`")
        return self
