"""What online algorithms optimise, and what evaluation reports for the others."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from aligntune.config.base import NeutralField, Strict

GUESSED = frozenset(("helpfulness",))
"""Rewards that mean nothing without a model: a run may report them, but not optimise them."""


class Reward(Strict):
    reward_type: str = Field(min_length=1)
    """The name of a built-in reward (`aligntune rewards` lists them), or
    `package.module:function` for one of your own."""
    weight: float = 1.0
    """What its score is multiplied by before the scores are added."""
    scale: Literal["none", "clip", "zscore", "group"] = "none"
    """What is done to its scores before that. `clip`: to at least `clip_low` and at most
    `clip_high`. `zscore`: less the mean of all its scores in this training so far, over their
    standard deviation. `group`: less the mean of the answers to the same prompt, over theirs; for
    every reward and with `train.scale_rewards: batch` that is GDPO (arXiv:2601.05242). Evaluation,
    where an answer has no group and no past, only clips."""
    clip_low: float | None = None
    """With `scale: clip`: what scores below it become."""
    clip_high: float | None = None
    """With `scale: clip`: what scores above it become."""
    gate: bool = False
    """Its scores, from 0 to 1, multiply the sum of the others instead of being added to it: what is
    unsafe earns nothing. A sum below 0 stays, since less of it would be a reward, and an answer
    that the gate cannot judge is left out."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Settings of the reward."""
    model_name: str | None = Field(None, min_length=1)
    """The model that judges, for rewards that use one: a hub id, a directory, or, in the MLflow
    registry, `models:/name@alias` or `models:/name/version`. `reward_type: model` without one is
    the run's own reward model."""
    on_error: Literal["stop", "skip", "value"] = "stop"
    """When it raises, hangs, or gives no finite number: end the run with the prompt and completion,
    leave the completion unjudged, or give it `error_value`. Failures are logged and counted."""
    error_value: float = 0.0
    """The score of what failed, with `on_error: value`."""
    timeout: float | None = Field(None, gt=0)
    """Seconds that a batch may take before it counts as failed. Default: no limit."""
    device: NeutralField[str] = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$")
    """Where that model runs. `auto` is the GPU where there is one, else the CPU."""

    @property
    def of_run(self) -> bool:
        """Whether it stands for the run's own reward model: `reward_model` or
        `model.reward_path`."""
        return self.reward_type == "model" and self.model_name is None


def metric_names(rewards: Sequence[Reward]) -> list[str]:
    """What evaluation calls the scores of each; a repeated name gets its number."""
    names = [f"rewards/{reward.reward_type}" for reward in rewards]
    return [
        name if names.index(name) == at else f"{name}-{names[:at].count(name) + 1}"
        for at, name in enumerate(names)
    ]
