"""What a stage does by what fits: chosen when it starts, and kept for as long as it is resumed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from aligntune.artifacts import write_atomic
from aligntune.config.slices import TrainSlice
from aligntune.estimate.memory import Choice, Place, has_reference, training_memory
from aligntune.estimate.room import Room
from aligntune.estimate.shape import Shape
from aligntune.estimate.words import gigabytes

FILE = "choice.json"
SET = "set"
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
        if found := decide(case):
            value, reason = found
            reasons = {**chosen.reasons, name: reason}
            chosen = replace(chosen, **{name: value}, reasons=reasons)
    return chosen


def applied(spec: TrainSlice, choice: Choice) -> TrainSlice:
    """`spec` with what was chosen in the place of `auto`."""
    settings: dict[str, object] = {"gradient_checkpointing": choice.gradient_checkpointing}
    if spec.algo != "dpo" and spec.train.lm_head == "auto":
        head = "plain" if choice.plain_head else "chunked"
        settings["train"] = spec.train.model_copy(update={"lm_head": head})
    return spec.model_copy(update=settings)


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


Found = tuple[bool, str] | None
"""What was decided and why; None where there is nothing to decide."""


def _plain_head(case: _Case) -> Found:
    asked = case.spec.train.lm_head
    if asked is None:
        return None
    if case.spec.algo == "dpo" and has_reference(case.spec):
        return False, "TRL's head computes policy and reference alike"
    if asked != "auto":
        return asked == "plain", SET
    if case.room.kind == "gpu":
        return False, "TRL's head has kernels of its own on a GPU"
    if case.spec.algo == "dpo":
        return True, "as the reference was computed"
    return case.fits(replace(case.sofar, plain_head=True))


def _checkpointing(case: _Case) -> Found:
    asked = case.spec.gradient_checkpointing
    if asked != "auto":
        return asked, SET
    if case.room.kind == "gpu":
        return True, "TRL's default on a GPU"
    without, why = case.fits(replace(case.sofar, gradient_checkpointing=False))
    return not without, why


_DECISIONS: tuple[tuple[str, Callable[[_Case], Found]], ...] = (
    ("plain_head", _plain_head),
    ("gradient_checkpointing", _checkpointing),
)
"""In the order in which they get what is free: by how much they gain."""
