"""When a reward is asked: what is told beside the samples."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


def _ignored(*_: Any) -> None:
    """Nothing is logged outside of training."""


@dataclass(frozen=True)
class Moment:
    step: int | None = None
    """The optimizer step that learns from the samples; None outside of training."""
    tools: Mapping[str, Any] = field(
        default_factory=lambda: {
            "trainer_state": None,
            "log_extra": _ignored,
            "log_metric": _ignored,
        }
    )
    """What TRL offers to rewards."""


_NOW: ContextVar[Moment] = ContextVar("reward moment")
_OUTSIDE = Moment()


def now() -> Moment:
    """The moment of the `at` that this is called in, also from threads that `waiting` starts."""
    return _NOW.get(_OUTSIDE)


@contextmanager
def at(moment: Moment) -> Iterator[None]:
    """Rewards that are called within are told `moment`."""
    token = _NOW.set(moment)
    try:
        yield
    finally:
        _NOW.reset(token)
