"""What happens when a reward fails: raises, hangs, or gives something else than scores."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from copy import deepcopy
from itertools import islice
from typing import Any, TypeVar

from aligntune.config.rewards import Reward
from aligntune.errors import AlignTuneError, ConfigError
from aligntune.exits import staying
from aligntune.rewards.moment import now
from aligntune.rewards.types import Sample
from aligntune.rewards.waiting import Hung, settled, within

T = TypeVar("T")
LARGEST = 1e9
"""Beyond that the spread of a group overflows in single precision, every advantage is 0 and a run
learns nothing."""
_SHOWN = 80
"""Characters of a prompt, a completion and a value in a message."""
_log = logging.getLogger(__name__)


class Wrong(ConfigError):
    """A reward gave something else than scores, or changed what it was given."""


class Guarded:
    """A scorer, of a function that may be async, that deals with failures as the config says.

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
            return scored(self._reward, self._score, samples)
        except KeyboardInterrupt:
            raise
        except Hung as error:
            return [self._instead(sample, error) for sample in samples]
        except BaseException as error:  # noqa: BLE001 - a user's code may raise anything, or exit
            return self._one_by_one(samples, error)

    def _one_by_one(self, samples: Sequence[Sample], batch: BaseException) -> list[float | None]:
        before = self.failed
        found = [self._alone(sample) for sample in samples]
        if self.failed > before:
            return found
        # Each is well alone, so the scores together cannot be trusted.
        return [self._instead(sample, batch) for sample in samples]

    def _alone(self, sample: Sample) -> float | None:
        try:
            return scored(self._reward, self._score, [sample])[0]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            return self._instead(sample, error)

    def _instead(self, sample: Sample, error: BaseException) -> float | None:
        step = "" if now().step is None else f"step {now().step}: "
        message = (
            f"{step}reward {self._reward.reward_type!r} failed on the prompt "
            f"{sample.prompt[:_SHOWN]!r} and completion {sample.completion[:_SHOWN]!r}: "
            f"{in_words(error)}"
        )
        if self._reward.on_error == "stop":
            private = isinstance(error, Hung | Wrong) or not isinstance(error, AlignTuneError)
            kind = ConfigError if private else type(error)
            raise kind(f"{message}; or go on without it: `on_error: skip`") from error
        self.failed += 1
        _log.warning("%s", message)
        return self._reward.error_value if self._reward.on_error == "value" else None


def scored(
    reward: Reward, score: Callable[..., Any], samples: Sequence[Sample]
) -> list[float | None]:
    """What `score` says of `samples`, one finite number or None for each.

    Raises:
        Hung: after the reward's `timeout`.
        Wrong: something else came back, or the samples were changed.
        BaseException: whatever `score` raises, SystemExit too.
    """
    # Our own change nothing, and copies take time.
    foreign = ":" in reward.reward_type
    given = deepcopy(samples) if foreign else samples
    call = staying if foreign else _plainly
    try:
        found = within(reward.timeout, lambda: call(lambda: _scores(score, given)))
    except Hung as error:
        raise Hung(f"no scores {error} for {len(samples)} samples; raise `timeout`") from None
    if foreign and list(given) != list(samples):
        raise Wrong("it changed the samples that it was given; let it work on copies")
    return [_number(value, reward) for value in found]


def _scores(score: Callable[..., Any], samples: Sequence[Sample]) -> list[Any]:
    return _listed(settled(score(samples)), len(samples))


def _plainly(work: Callable[[], T]) -> T:
    return work()


def in_words(error: BaseException) -> str:
    """What went wrong, in a line."""
    if isinstance(error, AlignTuneError):
        return str(error)
    try:
        said = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - it is a user's error
        said = "?"
    return f"{type(error).__name__}: {said}"


def _listed(found: Any, count: int) -> list[Any]:
    unordered = found is None or isinstance(found, str | bytes | Mapping | Set)
    try:
        scores = None if unordered else list(islice(found, count + 1))
    except TypeError:
        if isinstance(found, Iterable) and not getattr(found, "shape", None) == ():
            raise
        scores = None
    if scores is None:
        raise Wrong(
            f"it returned {_shown(found)}; return a list of one number per completion, None for "
            "what it cannot judge"
        )
    if len(scores) != count:
        more = "more than " if len(scores) > count else ""
        raise Wrong(
            f"it returned {_shown(found)}: {more}{min(len(scores), count)} scores for {count} "
            "samples; return one for each, None for what it cannot judge"
        )
    return scores


def _number(value: Any, reward: Reward) -> float | None:
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise Wrong(
            f"gave {_shown(value)}; return a finite number, or None for what it cannot judge"
        )
    if abs(number) > LARGEST:
        raise Wrong(f"gave {number:g}; a reward is a number from -{LARGEST:g} to {LARGEST:g}")
    if reward.gate and not 0 <= number <= 1:
        raise Wrong(f"gave {number:g}; a gate is a number from 0 to 1")
    return number


def _shown(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 - it is a user's value
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
