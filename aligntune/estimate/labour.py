"""How much a training stage computes: tokens and floating-point operations."""

import math
from dataclasses import dataclass

from aligntune.config.algo import ONLINE
from aligntune.config.slices import TrainSlice
from aligntune.estimate.lengths import Lengths
from aligntune.estimate.memory import Choice, has_reference, length_of, rows_of
from aligntune.estimate.shape import Shape

_FORWARD = 2
"""Operations per parameter and token: a product and a sum."""


@dataclass(frozen=True)
class Labour:
    steps: int
    """Optimizer steps."""
    tokens: int
    """That are trained on, padding and answers included."""
    flops: float
    decoded: int
    """Tokens that are sampled one after the other: each has all weights read."""
    at_most: bool
    """Whether rows or answers were taken to be as long as they may be, else as they are on
    average."""


def labour(
    shape: Shape, spec: TrainSlice, choice: Choice, lengths: Lengths | None
) -> Labour | None:
    """What the stage computes on all devices together; None while it is not known how many rows
    there are."""
    train, online = spec.train, spec.algo in ONLINE
    length = length_of(shape, spec, math.ceil(lengths.mean) if lengths else None)
    batch = train.per_device_batch_size * train.gradient_accumulation_steps * spec.processes
    steps = train.max_steps or _steps(spec, lengths, batch, length)
    if steps is None:
        return None
    sequences = steps * batch * rows_of(spec) // train.per_device_batch_size
    forward = _forward(shape, length) * length
    flops = sequences * forward * _passes(spec, choice)
    decoded = 0
    if online:
        uses = train.num_iterations or train.num_ppo_epochs or 1
        flops += sequences / uses * forward  # each token of prompts and answers goes in once
        passes = train.gradient_accumulation_steps * steps / uses
        rounds = math.ceil(passes / (train.steps_per_generation or 1))
        decoded = rounds * (train.max_completion_length or 0)
    return Labour(steps, sequences * length, flops, decoded, lengths is None or online)


def _steps(spec: TrainSlice, lengths: Lengths | None, batch: int, length: int) -> int | None:
    if lengths is None:
        return None
    sequences = float(lengths.rows)
    if spec.algo in ONLINE:
        sequences *= spec.train.num_generations or 1
    elif spec.train.packing:
        sequences *= lengths.mean / length
    return math.ceil(spec.train.num_epochs * sequences / batch)


def _forward(shape: Shape, length: int) -> float:
    """Operations per token of one forward pass: 2N, and the products of queries with keys and of
    probabilities with values, of which causality leaves half."""
    return _FORWARD * shape.active + _FORWARD * shape.layers * length * shape.queries


def _passes(spec: TrainSlice, choice: Choice) -> float:
    """Forward passes that a token of training is worth: one, two for the backward pass (one where
    weights are frozen), one if activations are made again, one of the reference."""
    passes = 1.0 + (1 if spec.peft else 2) + choice.gradient_checkpointing
    asked = has_reference(spec) or (
        spec.algo == "dpo" and spec.train.precompute_ref_log_probs is not True
    )
    return passes + asked + (spec.algo == "ppo") / (spec.train.num_ppo_epochs or 1)
