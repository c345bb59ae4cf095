"""What a training stage decides when it starts, by the memory that is free then."""

import logging
from dataclasses import asdict, replace
from typing import Any

from aligntune.estimate.choice import applied, choose, recall, remember, told
from aligntune.estimate.lengths import read_lengths
from aligntune.estimate.memory import Place, training_memory
from aligntune.estimate.room import Room, room
from aligntune.estimate.shape import read_shape
from aligntune.estimate.words import gigabytes
from aligntune.train import checkpoints, nodes
from aligntune.train.ranks import Job

LOG = logging.getLogger(__name__)


def settled(job: Job) -> tuple[Job, dict[str, Any]]:
    """`job` with what was decided in the place of every `auto`, and the decision as facts.

    The first process decides, and tells the others with the job. A stage that goes on from a
    checkpoint goes on as it began, however much is free by now; one that has none yet decides
    again.
    """
    shape, lengths = read_shape(job.model), read_lengths(job.data)
    longest = lengths.longest if lengths else None
    here = room(nodes.announced().share(job.spec.processes))
    choice = recall(job.work) if checkpoints.steps(job.work / "checkpoints") else None
    if choice is None:
        choice = choose(job.spec, shape, here, longest)
        remember(choice, job.work)
    LOG.info("%s", "; ".join(told(choice)))
    spec = applied(job.spec, choice)
    if shape is not None:
        place = Place(here.kind, spec.processes)
        _warn(training_memory(shape, spec, choice, place, longest).total, here)
    return replace(job, spec=spec), asdict(choice)


def _warn(needed: int, here: Room) -> None:
    """Say before it starts that it will hardly fit."""
    if here.free is not None and needed > here.free:
        LOG.warning(
            "each process of this stage needs about %s, and %s are free: it may run out of memory; "
            "lower train.per_device_batch_size or train.max_length, or train an adapter (peft)",
            gigabytes(needed), gigabytes(here.free),
        )  # fmt: skip
