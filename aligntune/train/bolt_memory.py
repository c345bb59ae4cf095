"""What bolt remembers of each prompt between steps, and the curriculum that follows from it."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch.utils.data import Sampler

from aligntune.errors import ResourceError
from aligntune.losses.baseline import Belief, curriculum, updated


class Visit(BaseModel):
    """One completion of a prompt, and how likely the policy found each of its tokens then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    completion: tuple[int, ...]
    logps: tuple[float, ...]
    """In nats."""


class Known(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    total: float
    mass: float
    last: Visit | None
    """Of the latest visit, unless its completions were all masked out."""


class State(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompts: dict[str, Known] = {}
    low: float = 0.0
    high: float = 1.0
    """The rewards seen so far lie in [low, high]."""
    epoch: int = 0
    draws: list[list[int]] = []
    """The rows of each round of sampling of `epoch`, those planned ahead included."""


class Memory:
    """The state of all prompts, the same on every process."""

    def __init__(self, prior: float) -> None:
        self.state = State()
        self._prior = prior

    def __len__(self) -> int:
        return len(self.state.prompts)

    def __contains__(self, key: str) -> bool:
        return key in self.state.prompts

    def belief(self, key: str) -> Belief:
        """Of a prompt never seen: `prior` rewards each at both ends of the range so far."""
        known = self.state.prompts.get(key)
        if known:
            return Belief(known.total, known.mass)
        return Belief(self._prior * (self.state.low + self.state.high), 2 * self._prior)

    def last(self, key: str) -> Visit | None:
        known = self.state.prompts.get(key)
        return known.last if known else None

    def visit(self, key: str, rewards: Sequence[float], keep: float, last: Visit | None) -> None:
        """Take in what one visit showed. `keep` is the share of the history that still holds."""
        belief = updated(self.belief(key), rewards, keep)
        self.state.prompts[key] = Known(
            total=belief.total, mass=belief.mass, last=last or self.last(key)
        )
        self.state.low = min(self.state.low, *rewards)
        self.state.high = max(self.state.high, *rewards)

    def rates(self, keys: Sequence[str]) -> torch.Tensor:
        """Expected rewards as shares of the range seen so far. (P,)"""
        low, high = self.state.low, self.state.high
        return torch.tensor([(self.belief(key).value - low) / (high - low) for key in keys])

    def save(self, file: Path) -> None:
        file.write_text(self.state.model_dump_json())

    def restore(self, file: Path) -> None:
        """Go on from a file that `save` wrote.

        Raises:
            ResourceError: it is missing or unreadable.
        """
        try:
            self.state = State.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise ResourceError(
                f"{file}: the baselines of this checkpoint cannot be read "
                f"({type(error).__name__}); remove the checkpoint to continue from an older one"
            ) from error


def prompt_key(prompt: str | Sequence[dict[str, Any]]) -> str:
    """A name for a prompt, the same in every process and after every restart."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(eq=False)
class Curriculum(Sampler[int]):
    """Rows in the order that a GRPO trainer reads them, drawn by how much there is to learn.

    Every round of sampling has `size` different prompts, `answers` times each, and is read
    `reads` times. Rounds are drawn `ahead` at a time with the weights of then, and remembered:
    a resumed run reads the rounds that it had, and draws the next ones as it would have.
    """

    keys: Sequence[str]
    memory: Memory
    _: KW_ONLY
    size: int
    answers: int
    reads: int
    ahead: int
    floor: float
    seed: int
    epoch: Callable[[], int]

    @property
    def _rounds(self) -> int:
        return len(self.keys) // self.size

    def __len__(self) -> int:
        return self._rounds * self.size * self.answers * self.reads

    def __iter__(self) -> Iterator[int]:
        state, epoch = self.memory.state, self.epoch()
        if state.epoch != epoch:
            state.epoch, state.draws = epoch, []
        for number in range(self._rounds):
            if number == len(state.draws):
                state.draws += self._drawn(epoch, number)
            for _ in range(self.reads):
                for row in state.draws[number]:
                    yield from [row] * self.answers

    def _drawn(self, epoch: int, start: int) -> list[list[int]]:
        weights = curriculum(self.memory.rates(self.keys), self.floor).double().numpy()
        shares = weights / weights.sum()
        # A generator for each round, so that what is drawn does not depend on what was before.
        return [
            np.random.default_rng([self.seed, epoch, number])
            .choice(len(self.keys), self.size, replace=False, p=shares)
            .tolist()
            for number in range(start, min(start + self.ahead, self._rounds))
        ]
