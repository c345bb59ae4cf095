"""Which stages of a run go on at the same time, and on which GPUs each of them.

`sft` and the reward model start from the same model and do not read each other, so they may.
"""

from collections.abc import Mapping, Sequence

from aligntune.config.logging import Launch
from aligntune.plan import Planned

TOGETHER = ("sft", "reward")
"""Labels, which follow one another in a plan."""


def rounds(
    stages: Sequence[Planned], launch: Launch, gpus: Sequence[str]
) -> list[list[tuple[Planned, Mapping[str, str]]]]:
    """The stages in order, those that run at the same time in one list, each with the variables
    that show its process its own GPUs."""
    room = len(gpus) >= len(TOGETHER) * launch.processes
    concurrent = room if launch.concurrent is None else launch.concurrent
    found: list[list[Planned]] = []
    for entry in stages:
        if concurrent and _beside(entry, found):
            found[-1].append(entry)
        else:
            found.append([entry])
    return [
        [(entry, _own(at, each, launch, gpus)) for at, entry in enumerate(each)] for each in found
    ]


def _beside(entry: Planned, found: Sequence[Sequence[Planned]]) -> bool:
    last = found[-1][-1].stage.label if found else ""
    return entry.stage.label in TOGETHER and last in TOGETHER


def _own(
    at: int, entries: Sequence[Planned], launch: Launch, gpus: Sequence[str]
) -> Mapping[str, str]:
    """Nothing where they have to share."""
    count = launch.processes
    if len(entries) == 1 or len(gpus) < len(entries) * count:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[at * count : (at + 1) * count])}
