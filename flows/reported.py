"""Prefect is told of a run, and the run does not depend on it: where it is away at the end, the run
ends as it ended."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import httpx
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.settings import get_current_settings, temporary_settings

from flows.artifacts import away

LOG = logging.getLogger("aligntune.flow")

ATTEMPTS = 3
"""New attempts to tell Prefect of the end, 14 seconds in all. Its engine tells of a success, and
where that fails of a failure."""

Body = Callable[..., Awaitable[Any]]


@dataclass
class _Run:
    here: bool = False
    """A command waits for it, and not Prefect's runner, which knows no more than what Prefect was
    told."""
    ended: bool = False
    """Its body came to its end."""
    error: BaseException | None = None
    """That came out of it."""


_run = _Run()


def reported(body: Body) -> Body:
    """A flow's body whose end is known here, whether Prefect takes it or not."""

    @wraps(body)
    async def known(*arguments: Any, **named: Any) -> Any:
        _run.ended, _run.error = False, None
        try:
            result = await body(*arguments, **named)
        except BaseException as error:
            _run.error = error
            raise
        else:
            _run.error = _error_of(result)
            return result
        finally:
            _run.ended = True
            if _run.here:
                _give_up_after(0 if away() else ATTEMPTS)

    return known


def _error_of(result: object) -> BaseException | None:
    data = result.data if isinstance(result, State) else None
    return data if isinstance(data, BaseException) else None


def _give_up_after(attempts: int) -> None:
    """What there is still to tell Prefect, of whom ever, is tried again no more often than that."""
    client = get_current_settings().client
    client.max_retries = min(attempts, client.max_retries)


@contextmanager
def told() -> Iterator[None]:
    """A flow in the block fails with its own error, or with none, and not with Prefect's because
    Prefect could not be told of its end."""
    _run.here, _run.ended = True, False
    try:
        with temporary_settings({}):  # of its own, which Prefect's threads have as well
            yield
    except (httpx.HTTPError, PrefectException) as error:
        if not _run.ended or _run.error is error:
            raise
        LOG.warning(
            "Prefect was not told how this run ended (%s); all that it made is there",
            str(error) or type(error).__name__,
        )
        if _run.error:
            raise _run.error from error
