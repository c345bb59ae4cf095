"""What a training stage decides when it starts, by the memory that is free then."""

import logging
from dataclasses import replace

from aligntune.errors import ResourceError
from aligntune.estimate.choice import applied, choose, recall, remedy, remember, told
from aligntune.estimate.lengths import read_lengths
from aligntune.estimate.memory import Choice, Place, training_memory
from aligntune.estimate.room import Room, room
from aligntune.estimate.shape import read_shape
from aligntune.estimate.words import gigabytes
from aligntune.journal import FILE
from aligntune.train import checkpoints, nodes
from aligntune.train.ranks import Job

LOG = logging.getLogger(__name__)


def settled(job: Job) -> tuple[Job, Choice]:
    """`job` with what was decided in the place of every `auto`, and the decision.

    The first process decides, and tells the others with the job. A stage that goes on from a
    checkpoint goes on as it began, however much is free by now; one that has none yet decides
    again. Where it is not known how it began, its checkpoints are put in quarantine: gone on with
    by another choice, they would lead to other bits.
    """
    shape, lengths = read_shape(job.model), read_lengths(job.data)
    longest = lengths.longest if lengths else None
    here = room(nodes.announced().share(job.spec.processes))
    choice = _begun(job)
    if choice is None:
        choice = choose(job.spec, shape, here, longest)
        remember(choice, job.work, job.key)
    LOG.info("%s", "; ".join(told(choice)))
    spec = applied(job.spec, choice)
    if shape is not None:
        place = Place(here.kind, spec.processes)
        needed = training_memory(shape, spec, choice, place, longest)
        _warn(needed.total, here, remedy(spec, choice, needed, here))
    return replace(job, spec=spec, kept_heap=choice.kept_heap), choice


def _begun(job: Job) -> Choice | None:
    """How the stage began; None where it begins now."""
    folder = job.work / "checkpoints"
    begun = bool(checkpoints.steps(folder))
    try:
        choice, key = recall(job.work)
    except ResourceError as error:
        if begun:
            problem = f"{error}, so nothing says what they were made with"
            checkpoints.set_aside(folder, problem)
        return None
    if key != job.key:
        # Somebody moved it here. Its checkpoints are refused one by one, and its curves, which a
        # stage that goes on would not write again, are no beginning of ours.
        (job.work.parent / FILE).unlink(missing_ok=True)
        return None
    return choice if begun else None


def _warn(needed: int, here: Room, instead: str) -> None:
    """Say before it starts that it will hardly fit."""
    if here.free is not None and needed > here.free:
        LOG.warning(
            "each process of this stage needs about %s, and %s are free: it may run out of memory; "
            "%s",
            gigabytes(needed), gigabytes(here.free), instead,
        )  # fmt: skip
