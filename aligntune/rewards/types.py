"""What a reward sees, and what it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion to score, and what it was asked for."""

    prompt: str
    """What the user said last."""
    completion: str
    answer: str | None = None
    """The reference answer, where the row has one."""
    truncated: bool = False
    """Generation stopped at the length limit and not at the end of the turn."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The row's other columns, as the dataset has them."""
    tokens: int | None = None
    """Tokens of the completion, with the one that ends it, where somebody counted them."""
    conversation: Sequence[Mapping[str, str]] = ()
    """All turns before the completion, where somebody has them."""
    ids: Sequence[int] = ()
    """The tokens themselves, in training."""


def last_user(prompt: Sequence[Mapping[str, str]]) -> str:
    """What the user said last, if anything."""
    return next((turn["content"] for turn in reversed(prompt) if turn["role"] == "user"), "")


Scorer = Callable[[Sequence[Sample]], list[float | None]]
"""One score per sample; None where the reward cannot judge it. Deterministic."""
Function = Callable[..., list[float | None]]
"""A Scorer with settings: `f(samples, *, name=default, ...)`."""
