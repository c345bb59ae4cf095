"""Dynamic sampling (DAPO, arXiv:2503.14476, section 3.2): a group whose answers are all rewarded
alike teaches nothing, so another prompt's group takes its place."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from aligntune.losses.policy import informative

Batch = dict[str, Tensor]
"""Rows of a rollout: `prompt_ids`, `prompt_mask` (left-padded), `completion_ids`,
`completion_mask` (B, T) (right-padded), `advantages` (B,) or (B, T), `num_items_in_batch` (),
`ref_per_token_logps` and `old_per_token_logps` (B, T) where they are needed, and whatever an
algorithm adds."""


def sequences(out: Batch) -> tuple[Tensor, Tensor]:
    """(B, S + T) prompts with their completions, and the mask of these."""
    ids = torch.cat([out["prompt_ids"], out["completion_ids"]], dim=1)
    return ids, torch.cat([out["prompt_mask"], out["completion_mask"]], dim=1)


class Sampled(NamedTuple):
    """Answers of this process, those to one prompt next to each other."""

    out: Batch
    rewards: Tensor
    """(B,), NaN where no reward could judge."""
    merits: Tensor
    """(B,) the same without what punishes length: whether a group teaches something does not
    depend on how long its answers are."""
    inputs: list[dict[str, Any]]
    """The rows of the dataset, one per answer."""

    def only(self, rows: Sequence[int]) -> "Sampled":
        """The answers with these numbers."""
        out = {k: v[rows] if v.dim() else v for k, v in self.out.items()}
        inputs = [self.inputs[row] for row in rows]
        return Sampled(out, self.rewards[rows], self.merits[rows], inputs)


def refilled(
    first: Sampled,
    *,
    answers: int,
    rounds: int,
    pad_id: int,
    more: Callable[[int, int], Sampled],
    most: Callable[[int], int],
) -> tuple[Sampled, int]:
    """As many groups as in `first`, informative ones as far as they were found, and the number of
    rounds it took.

    `more(round, groups)` samples that many groups to other prompts. `most` gives the largest of
    all processes' numbers: they sample together, or not at all.
    """
    useful = informative(first.merits.view(-1, answers)).tolist()
    wanted, taken = len(useful), 0
    parts = [first.only(_rows([i for i, good in enumerate(useful) if good], answers))]
    while taken < rounds and (lacking := most(wanted - _groups(parts, answers))) > 0:
        taken += 1
        new = more(taken, lacking)
        good = informative(new.merits.view(-1, answers)).nonzero().flatten().tolist()
        parts.append(new.only(_rows(good, answers)))
    # What could not be replaced stays: its advantages are 0.
    parts.append(first.only(_rows([i for i, good in enumerate(useful) if not good], answers)))
    return joined(parts, pad_id).only(range(wanted * answers)), taken


def joined(parts: Sequence[Sampled], pad_id: int) -> Sampled:
    """All answers of the parts, padded to common lengths."""
    out = {
        name: _stacked([part.out[name] for part in parts], name, pad_id) for name in parts[0].out
    }
    return Sampled(
        out,
        torch.cat([part.rewards for part in parts]),
        torch.cat([part.merits for part in parts]),
        [row for part in parts for row in part.inputs],
    )


def _stacked(tensors: Sequence[Tensor], name: str, pad_id: int) -> Tensor:
    if tensors[0].dim() < 2:
        return torch.cat(list(tensors)) if tensors[0].dim() else tensors[0]
    width = max(tensor.size(1) for tensor in tensors)
    value = pad_id if name.endswith("_ids") else 0
    left = name.startswith("prompt")
    gaps = [width - tensor.size(1) for tensor in tensors]
    sides = [(gap, 0) if left else (0, gap) for gap in gaps]
    padded = [pad(tensor, side, value=value) for tensor, side in zip(tensors, sides, strict=True)]
    return torch.cat(padded)


def _groups(parts: Sequence[Sampled], answers: int) -> int:
    return sum(len(part.inputs) for part in parts) // answers


def _rows(groups: Sequence[int], answers: int) -> list[int]:
    return [group * answers + answer for group in groups for answer in range(answers)]
