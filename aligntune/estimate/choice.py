"""What a stage does by what fits: chosen when it starts, and kept for as long as it is resumed."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from aligntune.artifacts import write_atomic
from aligntune.config.algo import ONLINE
from aligntune.config.slices import TrainSlice
from aligntune.errors import ResourceError
from aligntune.estimate.memory import Choice, Memory, Place, has_reference, training_memory
from aligntune.estimate.room import Room
from aligntune.estimate.shape import Shape
from aligntune.estimate.words import gigabytes

FILE = "choice.json"
SET = "set"
IMPOSSIBLE = "the model, the algorithm or this machine does not take it"
MARGIN = 0.7
"""Share of the free memory that an estimate may fill: it is right to about a fifth."""
AGAIN = 1.5
"""So many times what a stage needs has to fit that its heap is kept: it has gaps, which differ more
than the rest from one stage to the other."""


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
    train = {
        setting: taken if getattr(choice, name) else left
        for name, (setting, taken, left) in _SETTINGS.items()
        if getattr(spec.train, setting) == "auto"
        and not (_computed(spec) and name in _OF_REFERENCE)
    }
    return spec.model_copy(
        update={
            "gradient_checkpointing": choice.gradient_checkpointing,
            "train": spec.train.model_copy(update=train),
        }
    )


def made(choice: Choice, ways: Mapping[str, bool]) -> Choice:
    """`choice` with what a trainer could do of it, by name."""
    other = {name: found for name, found in ways.items() if found != getattr(choice, name)}
    reasons = {**choice.reasons, **dict.fromkeys(other, IMPOSSIBLE)}
    return replace(choice, **other, reasons=reasons)


def told(choice: Choice) -> Iterator[str]:
    """Each part as `lm_head: plain (0.5 GB fit ...)`, by the setting that it is of."""
    for name, reason in choice.reasons.items():
        setting, taken, left = _TOLD.get(name, (name, "true", "false"))
        yield f"{setting}: {taken if getattr(choice, name) else left} ({reason})"


def remedy(spec: TrainSlice, choice: Choice, needed: Memory, room: Room) -> str:
    """What would have it need less memory, and may be enough."""
    ways = []
    if room.free is None or needed.held + needed.gradients <= room.free:
        length = "max_completion_length" if spec.algo in ONLINE else "max_length"
        names = [f"train.{length}"]
        if spec.train.per_device_batch_size > 1:
            names.insert(0, "train.per_device_batch_size")
        ways.append(f"lower {' or '.join(names)}")
        if choice.plain_head:
            ways.append("set train.lm_head: chunked")
    if spec.peft is None:
        ways.append("train an adapter (peft)")
    elif room.kind == "gpu" and not spec.quantization and spec.algo != "reward":
        ways.append("load the weights in 4 bits (model.quantization)")
    return ", or ".join(ways or ["take a smaller model"])


def remember(choice: Choice, work: Path, key: str) -> None:
    """Keep it in the scratch directory of the stage with that key."""
    work.mkdir(parents=True, exist_ok=True)
    write_atomic(work / FILE, _sealed(choice, key))


def recall(work: Path) -> tuple[Choice, str]:
    """What was kept there, and the key of the stage that it was kept for.

    Raises:
        ResourceError: it is missing, or not what was written.
    """
    try:
        text = (work / FILE).read_text(encoding="utf-8")
        found = json.loads(text)
        choice, key = Choice(**found["choice"]), str(found["key"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ResourceError(f"{work / FILE} is unreadable ({type(error).__name__})") from error
    if text != _sealed(choice, key):
        raise ResourceError(f"{work / FILE} is not what was written")
    return choice, key


def _sealed(choice: Choice, key: str) -> str:
    """Its text, with its digest."""
    kept: dict[str, Any] = {"choice": asdict(choice), "key": key}
    digest = hashlib.sha256(json.dumps(kept).encode()).hexdigest()
    return json.dumps({**kept, "sha256": digest})


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

    def fits(self, choice: Choice, times: float = 1) -> tuple[bool, str]:
        """Whether the stage, or so many times what it needs, fits with a margin if this is chosen,
        in words."""
        if self._shape is None:
            return False, "the model's dimensions are not known"
        if self.room.free is None:
            return False, "free memory is not known"
        place = Place(self.room.kind, self.spec.processes)
        needed = training_memory(self._shape, self.spec, choice, place, self._longest).total
        fits = times * needed <= MARGIN * self.room.free
        word, of = "fit" if fits else "do not fit", "" if times == 1 else f"{times} times "
        return fits, (
            f"{of}{gigabytes(needed)} {word} into {MARGIN:.0%} of {gigabytes(self.room.free)} free"
        )


Found = tuple[bool, str] | None
"""What was decided and why; None where there is nothing to decide."""


def _plain_head(case: _Case) -> Found:
    asked = case.spec.train.lm_head
    if asked is None:
        return None
    if found := _beside(case):
        return found
    if asked != "auto":
        return asked == "plain", SET
    if case.room.kind == "gpu":
        return False, "TRL's head has kernels of its own on a GPU"
    if _computed(case.spec):
        return True, "as the reference was computed"
    return case.fits(replace(case.sofar, plain_head=True))


def _computed(spec: TrainSlice) -> bool:
    """Whether a stage before it computes the reference's log-probabilities."""
    return spec.algo == "dpo" and spec.train.precompute_ref_log_probs is True


def _beside(case: _Case) -> Found:
    if case.spec.algo == "dpo" and has_reference(case.spec):
        return False, "TRL's forward computes policy and reference alike"
    return None


def _padding_free(case: _Case) -> Found:
    asked = case.spec.train.padding_free
    if asked is None:
        return None
    return _beside(case) or _on_cpu(case, asked, "if the model's attention is sdpa")


def _own_sampler(case: _Case) -> Found:
    train = case.spec.train
    if train.sampler is None or train.vllm is not None:
        return None
    if train.sampler != "auto":
        return False, SET
    return _on_cpu(case, "auto", "if the model's cache is one of keys and values")


def _shared_prompts(case: _Case) -> Found:
    asked = case.spec.train.shared_prompts
    return None if asked is None else _on_cpu(case, asked, "where that is less work")


def _on_cpu(case: _Case, asked: str | bool, provided: str) -> tuple[bool, str]:
    if asked != "auto":
        return bool(asked), SET
    if case.room.kind == "gpu":
        return False, "nothing here was measured on a GPU"
    return True, f"a CPU; {provided}"


def _generation_copy(case: _Case) -> Found:
    asked = case.spec.train.generation_copy
    if asked is None:
        return None
    if asked != "auto":
        return asked, SET
    if not case.sofar.own_sampler:
        return False, "another sampler has none"
    if case.spec.precision != "bf16":
        return False, f"model.precision is {case.spec.precision}"
    return case.fits(replace(case.sofar, generation_copy=True))


def _checkpointing(case: _Case) -> Found:
    asked = case.spec.gradient_checkpointing
    if asked != "auto":
        return asked, SET
    if case.room.kind == "gpu":
        return True, "TRL's default on a GPU"
    without, why = case.fits(replace(case.sofar, gradient_checkpointing=False))
    return not without, why


def _kept_heap(case: _Case) -> Found:
    if not case.room.keeps_heap:
        return None
    if case.spec.algo == "dpo":
        return False, "dpo's heap has gaps then, of up to a third of what it needs"
    return case.fits(replace(case.sofar, kept_heap=True), AGAIN)


_DECISIONS: tuple[tuple[str, Callable[[_Case], Found]], ...] = (
    ("padding_free", _padding_free),
    ("own_sampler", _own_sampler),
    ("shared_prompts", _shared_prompts),
    ("plain_head", _plain_head),
    ("generation_copy", _generation_copy),
    ("gradient_checkpointing", _checkpointing),
    ("kept_heap", _kept_heap),
)
"""What takes no memory first; then in the order in which they get what is free: by how much they
gain."""

_SETTINGS: Mapping[str, tuple[str, str | bool, str | bool]] = {
    "padding_free": ("padding_free", True, False),
    "own_sampler": ("sampler", "auto", "transformers"),
    "shared_prompts": ("shared_prompts", "auto", False),
    "plain_head": ("lm_head", "plain", "chunked"),
    "generation_copy": ("generation_copy", "auto", False),
}
"""Choice -> (setting in `train`, its value if it is chosen, and if not). What would be an error if
it were asked for by name and cannot be done stays at `auto`."""
_OF_REFERENCE = ("plain_head", "padding_free")
"""dpo has these as its reference was computed, so they stay as they are."""
_TOLD = {
    "own_sampler": ("sampler", "auto", "transformers"),
    "plain_head": ("lm_head", "plain", "chunked"),
    "kept_heap": ("memory that a step frees is kept", "true", "false"),
}
"""Choice -> what it is called in a config, and its two values there, where these differ."""
