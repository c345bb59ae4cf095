"""What happens when a reward fails: raises, hangs, or gives something else than scores."""

import asyncio
import inspect
import logging
import math
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

from aligntune.config.rewards import Reward
from aligntune.errors import AlignTuneError, ConfigError
from aligntune.rewards.types import Sample, Scorer

_SHOWN = 80
"""Characters of a prompt and a completion in a message."""
_log = logging.getLogger(__name__)


class Guarded:
    """A scorer that deals with failures as the config says.

    A batch that fails is scored again one by one, so that the message names the completion and the
    others keep their scores. One that takes more than `timeout` seconds is not tried again.
    """

    def __init__(self, reward: Reward, name: str, score: Callable[..., Any]) -> None:
        self.__name__ = name
        self.failed = 0
        """Completions that got no score of the reward's own, ever."""
        self._reward = reward
        self._score = score

    def __call__(self, samples: Sequence[Sample]) -> list[float | None]:
        try:
            return self._scored(samples)
        except _Hung as error:
            return [self._instead(sample, error) for sample in samples]
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything
            return self._one_by_one(samples, error)

    def _one_by_one(self, samples: Sequence[Sample], batch: Exception) -> list[float | None]:
        before = self.failed
        found = [self._alone(sample) for sample in samples]
        if self.failed > before:
            return found
        # Each is well alone, so the scores together cannot be trusted.
        return [self._instead(sample, batch) for sample in samples]

    def _alone(self, sample: Sample) -> float | None:
        try:
            return self._scored([sample])[0]
        except Exception as error:  # noqa: BLE001 - as above
            return self._instead(sample, error)

    def _scored(self, samples: Sequence[Sample]) -> list[float | None]:
        found = list(_within(self._reward.timeout, self._score, samples))
        if len(found) != len(samples):
            raise ConfigError(
                f"{len(found)} scores for {len(samples)} samples; return one for each, None for "
                "what it cannot judge"
            )
        return [_number(value) for value in found]

    def _instead(self, sample: Sample, error: Exception) -> float | None:
        known = isinstance(error, AlignTuneError)
        what = str(error) if known else f"{type(error).__name__}: {error}"
        message = (
            f"reward {self._reward.reward_type!r} failed on the prompt "
            f"{sample.prompt[:_SHOWN]!r} and completion {sample.completion[:_SHOWN]!r}: {what}"
        )
        if self._reward.on_error == "stop":
            kind = type(error) if known else ConfigError
            raise kind(f"{message}; or go on without it: `on_error: skip`") from error
        self.failed += 1
        _log.warning("%s", message)
        return self._reward.error_value if self._reward.on_error == "value" else None


class _Hung(ConfigError):
    pass


def guarded(reward: Reward, name: str, score: Callable[..., Any]) -> Scorer:
    """`score`, which may be async, with the failures of `reward` dealt with."""
    return Guarded(reward, name, score)


def _within(seconds: float | None, score: Callable[..., Any], samples: Sequence[Sample]) -> Any:
    """What `score` says of `samples`. Raises _Hung after `seconds`; its thread is left behind."""
    if seconds is None and not inspect.iscoroutinefunction(score):
        return score(samples)
    outcome: list[Any] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            found = score(samples)
            outcome.append(asyncio.run(found) if inspect.iscoroutine(found) else found)
        except Exception as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    # Not in this thread, where an event loop may run already.
    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not outcome:
        raise _Hung(f"no scores after {seconds:g} s for {len(samples)} samples; raise `timeout`")
    return outcome[0]


def _number(value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(
            f"gave {value!r}; return a finite number, or None for what it cannot judge"
        )
    return number
