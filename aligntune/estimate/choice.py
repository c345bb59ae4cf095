"""What a stage does by what fits: chosen when it starts, and kept for as long as it is resumed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from aligntune.artifacts import write_atomic
from aligntune.config.slices import TrainSlice
from aligntune.estimate.memory import Choice, Place, training_memory
from aligntune.estimate.room import Room
from aligntune.estimate.shape import Shape
from aligntune.estimate.words import gigabytes

FILE = "choice.json"
MARGIN = 0.7
"""Share of the free memory that an estimate may fill: it is right to about a fifth."""


def choose(spec: TrainSlice, shape: Shape | None, room: Room, longest: int | None = None) -> Choice:
    """What of it fits into this room, with the reason for each. `longest` is as in
    `training_memory`.

    What is set in `spec` is no choice.
    """
    chosen = Choice(gradient_checkpointing=True)
    for name, decide in _DECISIONS:
        case = _Case(spec, shape, room, chosen, longest)
        value, reason = decide(case)
        reasons = {**chosen.reasons, name: reason}
        chosen = replace(chosen, **{name: value}, reasons=reasons)
    return chosen


def applied(spec: TrainSlice, choice: Choice) -> TrainSlice:
    """`spec` with what was chosen in the place of `auto`."""
    return spec.model_copy(update={"gradient_checkpointing": choice.gradient_checkpointing})


def told(choice: Choice) -> Iterator[str]:
    """Each part as `gradient_checkpointing: false (0.5 GB fit ...)`."""
    for name, reason in choice.reasons.items():
        yield f"{name}: {str(asdict(choice)[name]).lower()} ({reason})"


def remember(choice: Choice, work: Path) -> None:
    """Keep it in the scratch directory of the stage."""
    work.mkdir(parents=True, exist_ok=True)
    write_atomic(work / FILE, json.dumps(asdict(choice)))


def recall(work: Path) -> Choice | None:
    """What was kept there; None where nothing was, or it is damaged."""
    try:
        return Choice(**json.loads((work / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class _Case:
    """What one decision is about."""

    def __init__(
        self,
        spec: TrainSlice,
        shape: Shape | None,
        room: Room,
        sofar: Choice,
        longest: int | None,
    ) -> None:
        self.spec, self.room = spec, room
        self.sofar = sofar
        self._shape, self._longest = shape, longest

    def fits(self, choice: Choice) -> tuple[bool, str]:
        """Whether the stage fits with a margin if this is chosen, in words."""
        if self._shape is None:
            return False, "the model's dimensions are not known"
        if self.room.free is None:
            return False, "free memory is not known"
        place = Place(self.room.kind, self.spec.processes)
        needed = training_memory(self._shape, self.spec, choice, place, self._longest).total
        fits = needed <= MARGIN * self.room.free
        word = "fit" if fits else "do not fit"
        return fits, (
            f"{gigabytes(needed)} {word} into {MARGIN:.0%} of {gigabytes(self.room.free)} free"
        )


def _plain_head(case: _Case) -> tuple[bool, str]:
    if case.spec.algo != "sft" or case.spec.train.loss_type != "nll":
        return False, "only sft with nll has it"
    if case.room.kind == "gpu":
        return False, "on a GPU TRL's fused head has kernels of its own"
    return case.fits(replace(case.sofar, plain_head=True))


def _checkpointing(case: _Case) -> tuple[bool, str]:
    asked = case.spec.gradient_checkpointing
    if asked != "auto":
        return asked, "set"
    if case.room.kind == "gpu":
        return True, "TRL's default on a GPU"
    without, why = case.fits(replace(case.sofar, gradient_checkpointing=False))
    return not without, why


def _generation_copy(case: _Case) -> tuple[bool, str]:
    train = case.spec.train
    if not train.max_completion_length or train.vllm is not None:
        return False, "nothing is sampled here"
    if case.spec.precision != "bf16":
        return False, f"everything is computed in {case.spec.precision}"
    if case.room.kind == "gpu":
        return False, "was not measured on a GPU"
    return case.fits(replace(case.sofar, generation_copy=True))


_DECISIONS: tuple[tuple[str, Callable[[_Case], tuple[bool, str]]], ...] = (
    ("plain_head", _plain_head),
    ("gradient_checkpointing", _checkpointing),
    ("generation_copy", _generation_copy),
)
"""In the order in which they get what is free: by how much they gain."""
