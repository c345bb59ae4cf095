"""A flow ends as its body did, also where Prefect cannot be told."""

import asyncio

import httpx
import pytest
from prefect.settings import get_current_settings
from prefect.states import Cancelled

from aligntune.errors import DataError, Interrupted
from flows import artifacts
from flows.reported import ATTEMPTS, reported, told

GONE = httpx.ConnectError("nobody there")


def run(body, engine=GONE):
    """A flow whose engine fails once the body has ended, as Prefect's does without a server; how
    often its client would try again by then."""

    async def flow():
        try:
            await reported(body)()
        except httpx.HTTPError:
            raise
        except BaseException as error:
            raise engine from error
        tries.append(get_current_settings().client.max_retries)
        raise engine

    tries = []
    with told():
        asyncio.run(flow())
    return tries


async def done():
    return "model"


async def failed():
    raise DataError("no rows")


async def interrupted():
    raise KeyboardInterrupt


async def cancelled():
    return Cancelled(message="stopped", data=Interrupted("stopped"))


async def unreachable():
    raise GONE


def test_a_run_that_is_done_is_done(caplog):
    run(done)
    assert "was not told how this run ended (nobody there)" in caplog.text


@pytest.mark.parametrize(
    ("body", "error"),
    [(failed, DataError), (interrupted, KeyboardInterrupt), (cancelled, Interrupted)],
)
def test_a_run_that_failed_or_was_stopped_says_so_and_not_that_prefect_is_away(body, error):
    with pytest.raises(error):
        run(body)


def test_a_run_that_needs_what_prefect_does_not_say_fails_with_that():
    with pytest.raises(httpx.ConnectError):
        run(unreachable)

    async def never_began():
        raise GONE

    with pytest.raises(httpx.ConnectError), told():
        asyncio.run(never_began())


@pytest.mark.parametrize("failures", [0, 1])
def test_nothing_is_tried_for_long_at_the_end(failures, monkeypatch):
    monkeypatch.setattr(artifacts, "_prefect", artifacts._Prefect(failures))
    before = get_current_settings().client.max_retries
    assert run(done) == [0 if failures else ATTEMPTS]
    assert get_current_settings().client.max_retries == before > ATTEMPTS
