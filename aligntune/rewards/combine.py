"""Several rewards as one number per answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from aligntune.config.rewards import Reward

EPSILON = 1e-4
"""Added to what is divided by, as TRL does for advantages."""


@dataclass(frozen=True)
class Moments:
    """What is known of the scores of K rewards so far; (K,) each, in double precision."""

    count: Tensor
    mean: Tensor
    squares: Tensor
    """Sums of the squared distances from the mean."""

    @classmethod
    def of(cls, scores: Tensor) -> "Moments":
        """Of scores (B, K), NaN where a reward could not judge; B may be 0."""
        known = scores.detach().cpu().double()
        count = (~known.isnan()).sum(0).double()
        mean = known.nansum(0) / count.clamp(min=1)
        return cls(count, mean, ((known - mean) ** 2).nansum(0))

    def merged(self, other: "Moments") -> "Moments":
        """Of both (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * share,
            self.squares + other.squares + apart**2 * self.count * share,
        )

    @property
    def std(self) -> Tensor:
        """(K,), 0 where there are less than two scores."""
        return (self.squares / (self.count - 1).clamp(min=1)).sqrt()


class Combined(NamedTuple):
    rewards: Tensor
    """(B,), NaN where no reward that counts could judge, or a gate could not."""
    gates: Tensor
    """(B,) the product of the gates; 1 without any."""


def combined(
    scores: Tensor,
    rewards: Sequence[Reward],
    *,
    moments: Moments | None = None,
    answers: int | None = None,
) -> Combined:
    """The weighted sum of scores (B, K), each scaled as its reward says, times the gates.

    A reward that cannot judge an answer is left out of its sum; where none of those with a weight
    can, there is no sum, whatever is only reported. A gate multiplies what is above 0:
    less of a negative sum would be a reward. `zscore` needs the `moments` of the scores so far, and
    `group` the number of `answers` to each prompt, which are next to each other; without these the
    scores are taken as they are.
    """
    added = [index for index, reward in enumerate(rewards) if not reward.gate]
    gating = [index for index, reward in enumerate(rewards) if reward.gate]
    parts = [_scaled(scores[:, i], rewards[i], i, moments, answers) for i in added]
    weights = scores.new_tensor([rewards[i].weight for i in added])
    columns = torch.stack(parts, dim=1)
    counted = columns[:, weights != 0] if bool(weights.any()) else columns
    sums = (columns * weights).nansum(1).masked_fill(counted.isnan().all(1), torch.nan)
    gates = scores[:, gating].prod(1)
    return Combined(torch.where(sums > 0, gates * sums, sums + gates * 0), gates)


def correlations(scores: Tensor) -> dict[tuple[int, int], float]:
    """Pearson's coefficient of each pair of rewards over the answers that both could judge.

    (B, K) -> by the numbers of two columns; not for a pair in which one does not vary.
    """
    known = scores.detach().cpu().double()
    found = {}
    for one, other in combinations(range(known.size(1)), 2):
        pair = known[:, [one, other]]
        pair = pair[~pair.isnan().any(1)]
        if len(pair) > 2 and bool((pair.amax(0) > pair.amin(0)).all()):
            found[one, other] = float(torch.corrcoef(pair.T)[0, 1])
    return found


def _scaled(
    column: Tensor, reward: Reward, index: int, moments: Moments | None, answers: int | None
) -> Tensor:
    """(B,) -> (B,)"""
    if reward.scale == "clip":
        return column.clamp(reward.clip_low, reward.clip_high)
    if reward.scale == "zscore" and moments is not None:
        mean, std = float(moments.mean[index]), float(moments.std[index])
        return (column - mean) / (std + EPSILON)
    if reward.scale == "group" and answers is not None:
        return _within_groups(column.view(-1, answers)).flatten()
    return column


def _within_groups(groups: Tensor) -> Tensor:
    """(P, G) -> (P, G); exactly 0 where all scores of a group are the same."""
    centred = groups - groups.nanmean(1, keepdim=True)
    count = (~groups.isnan()).sum(1, keepdim=True)
    std = ((centred**2).nansum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    high = groups.nan_to_num(-torch.inf).amax(1, keepdim=True)
    low = groups.nan_to_num(torch.inf).amin(1, keepdim=True)
    # Equal scores minus their mean leave a residue of rounding, which is no signal.
    scaled = torch.where(high > low, centred / (std + EPSILON), torch.zeros_like(groups))
    return scaled.masked_fill(groups.isnan(), torch.nan)
