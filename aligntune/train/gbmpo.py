"""Group-based mirror policy optimisation (arXiv:2602.04380): the GRPO family with another
divergence from the reference than KL."""

from typing import Any

from torch import Tensor

from aligntune.config.train import Train
from aligntune.losses.divergence import distance, estimate
from aligntune.train.refill import Batch
from aligntune.train.rollout import Rollout, given


class Gbmpo(Rollout):
    def __init__(self, settings: Train, **kwargs: Any) -> None:
        super().__init__(settings, **kwargs)
        self.kl_in_loss = given(settings.beta)

    @classmethod
    def options(cls, train: Train) -> dict[str, Any]:
        options = super().options(train)
        # Any beta but 0 has TRL score the answers by the reference.
        return options | {"beta": train.beta or float(bool(train.divergence_weight))}

    def extra_loss(self, inputs: Batch) -> Tensor | None:
        train = self.settings
        if not train.divergence_weight:
            return None
        logps, reference = given(self.logps), inputs["ref_per_token_logps"]
        kind, estimator = given(train.divergence), given(train.divergence_estimator)
        far = distance(logps, reference, kind)
        self.note("divergence", far, inputs["completion_mask"])
        terms = estimate(logps, reference, kind, estimator)
        return train.divergence_weight * self.aggregate(terms, inputs)
