"""What to do when the hub does not answer as hoped: wait and try again, or say what to fix."""

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from aligntune.errors import AlignTuneError, ConfigError, ResourceError, ServiceError

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

T = TypeVar("T")

logger = logging.getLogger(__name__)

BUDGET_SECONDS = 600.0
BUDGET_VARIABLE = "ALIGNTUNE_HUB_BUDGET"
LONGEST_SILENCE = 60.0
LONGEST_WAIT = 60.0
BUSY = {408, 409, 412, 425, 429}
"""Statuses below 500 after which the same request may succeed; 412 is a lost race of two pushes."""
LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE}


@dataclass(frozen=True)
class _Busy:
    """Why another attempt may help, and how long the server asked to wait, in seconds."""

    reason: str
    wait: float | None = None


def retrying(action: Callable[[], T], what: str, budget_seconds: float = BUDGET_SECONDS) -> T:
    """What `action()` returns, after as many attempts as the budget allows.

    Tried again, with growing waits or those the server asks for: 429, 5xx, timeouts, cut
    connections. `what` names the repository and the config key in the errors, which are
    ServiceError after the budget and ConfigError at once where waiting does not help.
    """
    from huggingface_hub import get_session
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    budget = _budget(budget_seconds)
    deadline = time.monotonic() + budget
    attempt = 0
    while True:
        # The client's own default is to wait for ever.
        get_session().timeout = timeout(budget)
        try:
            return action()
        except AlignTuneError:
            raise
        except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
            busy = _busy(error, what)
            wait = _wait(busy, attempt, deadline - time.monotonic())
            if wait is None:
                raise ServiceError(
                    f"the hub did not serve {what} within {budget:g} s ({busy.reason}); run again "
                    f"later, or set {BUDGET_VARIABLE} to more seconds"
                ) from error
        logger.warning("%s: %s; trying again in %.1f s", what, busy.reason, wait)
        time.sleep(wait)
        attempt += 1


def timeout(budget_seconds: float = BUDGET_SECONDS) -> float:
    """Seconds of silence after which a connection counts as cut."""
    return min(LONGEST_SILENCE, _budget(budget_seconds))


def _budget(seconds: float) -> float:
    text = os.environ.get(BUDGET_VARIABLE)
    if not text:
        return seconds
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) == 0:
        raise ConfigError(f"{BUDGET_VARIABLE}={text!r} must be a number of seconds above 0")
    return float(text)


def _wait(busy: _Busy, attempt: int, left: float) -> float | None:
    """Seconds until the next attempt, None if the budget does not reach that far."""
    if busy.wait is not None:
        wait = busy.wait * random.uniform(1, 1.1)
        return wait if wait <= left else None
    wait = min(LONGEST_WAIT, 0.5 * 2**attempt) * random.uniform(0.5, 1)
    return min(wait, left) if left > 0 else None


def _busy(error: Exception, what: str) -> _Busy:
    """Why to try again. Raises where that is no use; an error that is not the hub's passes."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    for cause in _chain(error):
        if isinstance(cause, OfflineModeIsEnabled):
            raise ServiceError(
                f"{what} is not complete in the local cache and HF_HUB_OFFLINE is set; "
                "run once without it"
            ) from error
        if isinstance(cause, HFValidationError):
            raise ConfigError(f"{what} is not a hub id; write it as owner/name") from error
        if isinstance(cause, HfHubHTTPError):
            return _answered(cause, what)
        if isinstance(cause, httpx.TransportError | ConnectionError | TimeoutError):
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


def _answered(error: "HfHubHTTPError", what: str) -> _Busy:
    """The same for an answer with a status that is an error."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    if status in BUSY or status >= 500:
        return _Busy(f"HTTP {status}", _asked(error.response.headers))
    if isinstance(error, GatedRepoError):
        message = "is gated; accept its terms on its page, and set HF_TOKEN to that account's token"
    elif isinstance(error, RepositoryNotFoundError):
        message = "is not on the hub, or is private; fix the id, or set HF_TOKEN if it is private"
    elif isinstance(error, RevisionNotFoundError):
        message = "has no such branch, tag or commit; fix its revision"
    elif status in (401, 403):
        message = f"is refused{_said(error)}; set HF_TOKEN to a token that may use it"
    else:
        message = f"is refused with HTTP {status}{_said(error)}"
    raise ConfigError(f"{what} {message}") from error


def _said(error: "HfHubHTTPError") -> str:
    """The server's reason in brackets, one line, without our token should it repeat that."""
    from huggingface_hub import get_token

    text = " ".join((error.server_message or "").split())
    if token := get_token():
        text = text.replace(token, "***")
    return f" ({text[:200]})" if text else ""


def _asked(headers: "Mapping[str, str] | httpx2.Headers") -> float | None:
    """Seconds that the server asks to wait: `Retry-After` as a number or a date, or `RateLimit`."""
    after = (headers.get("Retry-After") or "").strip()
    if after.isdigit():
        return float(after)
    try:
        return max(0.0, (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        reset = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("RateLimit") or "")
        return float(reset[1]) if reset else None
