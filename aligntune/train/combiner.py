"""What the rewards of a run make of its answers, kept across steps."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aligntune.config.rewards import Reward
from aligntune.rewards.combine import Combined, Moments, combined, correlations

_STATE = ("count", "mean", "squares")
CLOSED = 0.5
"""A gate below it counts as closed."""


class Combiner:
    """Combines the scores of all processes, so that each of them knows the same past."""

    def __init__(self, rewards: Sequence[Reward], answers: int) -> None:
        self.rewards = tuple(rewards)
        self._answers = answers
        self._moments = Moments.of(torch.empty(0, len(self.rewards)))

    def trained(self, scores: Tensor) -> Combined:
        """Of a round of sampling (B, K), which counts for the running statistics at once."""
        self._moments = self._moments.merged(Moments.of(scores))
        return combined(scores, self.rewards, moments=self._moments, answers=self._answers)

    def measured(self, scores: Tensor) -> Combined:
        """Of answers to held-out prompts, one to each, as `evaluate` combines them."""
        return combined(scores, self.rewards)

    def metrics(
        self, scores: Tensor, result: Combined, names: Sequence[str]
    ) -> Mapping[str, float]:
        """How the rewards, by their `names`, go together, and what the gates did."""
        found = {
            f"rewards/correlation/{names[one]}/{names[other]}": value
            for (one, other), value in correlations(scores).items()
        }
        gates = result.gates[~result.gates.isnan()]
        if any(reward.gate for reward in self.rewards) and len(gates):
            found["rewards/gate"] = float(gates.mean())
            found["rewards/gated"] = float((gates < CLOSED).float().mean())
        return found

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs: nothing where no reward has a past."""
        if all(reward.scale != "zscore" for reward in self.rewards):
            return {}
        return {name: getattr(self._moments, name) for name in _STATE}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        if state:
            self._moments = Moments(*(state[name] for name in _STATE))
