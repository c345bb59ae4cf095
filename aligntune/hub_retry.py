"""What to do when a hub does not answer as hoped: wait and try again, or say what to fix.

This knows what hubs answer, not which client asks them: `hub` hands over the client's exceptions.
"""

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from aligntune.aside import pause, promptly
from aligntune.errors import AlignTuneError, ConfigError, ResourceError, ServiceError

T = TypeVar("T")

logger = logging.getLogger(__name__)

_BUDGET = ContextVar("budget", default=600.0)
"""Seconds for one operation."""
BUDGET_VARIABLE = "ALIGNTUNE_HUB_BUDGET"
LONGEST_SILENCE = 60.0
LONGEST_WAIT = 60.0
BUSY = {408, 409, 412, 425, 429}
"""Statuses below 500 after which the same request may succeed; 412 is a lost race of two pushes."""
LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE}
REFUSALS = {
    "GatedRepo": "is gated; accept its terms on its page, and set HF_TOKEN to that account's token",
    "RepoNotFound": "is not on the hub, or private; fix the id, or set HF_TOKEN if it is private",
    "RevisionNotFound": "has no such branch, tag or commit; fix its revision",
}
"""By the hub's own error code."""


@dataclass(frozen=True)
class Client:
    """How the client says that something went wrong."""

    offline: type[Exception]
    """It was told not to use the network."""
    invalid_id: type[Exception]
    refused: Any
    """The answer's status is an error; has `response` and `server_message`."""
    network: type[Exception]
    failure: type[Exception]
    """Base class of `refused` and `network`."""
    token: str | None
    """Removed from messages, should a server repeat it."""


@dataclass(frozen=True)
class _Busy:
    """Why another attempt may help, and how long the server asked to wait, in seconds."""

    reason: str
    wait: float | None = None


def retried(action: Callable[[], T], what: str, budget: float, client: Client) -> T:
    """What `action()` returns, after as many attempts as `budget` seconds allow. Interrupted where
    someone asks to stop meanwhile."""
    deadline = time.monotonic() + budget
    attempt, doing = 0, f"the hub is asked for {what}"
    while True:
        try:
            return promptly(action, doing)
        except AlignTuneError:
            raise
        except (OSError, ValueError, RuntimeError, client.failure) as error:
            busy = _busy(error, what, client)
            wait = _wait(busy, attempt, deadline - time.monotonic())
            if wait is None:
                raise ServiceError(
                    f"the hub did not serve {what} within {budget:g} s ({busy.reason}); run again "
                    f"later, set {BUDGET_VARIABLE} to more seconds, or HF_HUB_OFFLINE=1 to take "
                    "what is in the local cache"
                ) from error
        logger.warning("%s: %s; trying again in %.1f s", what, busy.reason, wait)
        pause(wait, doing)
        attempt += 1


def budget_of() -> float:
    """Seconds that an operation may take with all its attempts."""
    text = os.environ.get(BUDGET_VARIABLE)
    if not text:
        return _BUDGET.get()
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) == 0:
        raise ConfigError(f"{BUDGET_VARIABLE}={text!r} must be a number of seconds above 0")
    return float(text)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Another budget for what is asked in the block, where the environment has none."""
    before = _BUDGET.set(seconds)
    try:
        yield
    finally:
        _BUDGET.reset(before)


def timeout() -> float:
    """Seconds of silence after which a connection counts as cut."""
    return min(LONGEST_SILENCE, budget_of())


def _wait(busy: _Busy, attempt: int, left: float) -> float | None:
    """Seconds until the next attempt, None if the budget does not reach that far."""
    if busy.wait is not None:
        wait = busy.wait * random.uniform(1, 1.1)
        return wait if wait <= left else None
    wait = min(LONGEST_WAIT, 0.5 * 2**attempt) * random.uniform(0.5, 1)
    return min(wait, left) if left > 0 else None


def _busy(error: Exception, what: str, client: Client) -> _Busy:
    """Why to try again. Raises where that is no use; an error that is not the hub's passes."""
    for cause in _chain(error):
        if isinstance(cause, client.offline):
            raise ServiceError(
                f"{what} is not complete in the local cache and HF_HUB_OFFLINE is set; "
                "run once without it"
            ) from error
        if isinstance(cause, client.invalid_id):
            raise ConfigError(f"{what} is not a hub id; write it as owner/name") from error
        if isinstance(cause, client.refused):
            return _answered(cause, what, client.token)
        if isinstance(cause, client.network | ConnectionError | TimeoutError):
            return _Busy(type(cause).__name__)
        if isinstance(cause, OSError) and cause.errno in LOCAL:
            place = f" at {cause.filename}" if cause.filename else ""
            raise ResourceError(f"{what}: {cause.strerror}{place}; make room there") from error
    if isinstance(error, FileNotFoundError) and error.errno is None:
        # `datasets` says so, with the hub's own answer already dropped.
        raise ConfigError(f"{what}: {str(error).splitlines()[0]}") from error
    if "Consistency check failed" in str(error):
        return _Busy("a file of the wrong size")
    raise error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, once each."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _answered(error: Any, what: str, token: str | None) -> _Busy:
    """The same for an answer with a status that is an error."""
    status: int = error.response.status_code
    headers: Mapping[str, str] = error.response.headers
    if status in BUSY or status >= 500:
        return _Busy(f"HTTP {status}", _asked(headers))
    text = " ".join((error.server_message or "").split())
    said = f" ({text.replace(token, '***') if token else text})"[:200] if text else ""
    refusal = REFUSALS.get(headers.get("X-Error-Code") or "")
    if refusal is None and status in (401, 403):
        refusal = f"is refused{said}; set HF_TOKEN to a token that may use it, or fix the id"
    raise ConfigError(f"{what} {refusal or f'is refused with HTTP {status}{said}'}") from error


def _asked(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `Retry-After` as a number or a date, or `RateLimit`."""
    after = (headers.get("Retry-After") or "").strip()
    if after.isdigit():
        return float(after)
    try:
        return max(0.0, (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        reset = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("RateLimit") or "")
        return float(reset[1]) if reset else None
