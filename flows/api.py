"""Prefect's API for commands that only talk to it: a server that stays, never a temporary one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectException
from prefect.settings import get_current_settings

from aligntune.errors import AlignTuneError, ConfigError, ServiceError

LOG = logging.getLogger("aligntune.flow")


def configured() -> str | None:
    """The address of Prefect's API, by the environment or by the profile that is in use."""
    return get_current_settings().api.url


@asynccontextmanager
async def server() -> AsyncIterator[PrefectClient]:
    """A client of the configured server; its failures come out as ours.

    Raises:
        ConfigError: none is configured, or it refuses what was sent.
        ServiceError: it does not answer.
    """
    if not configured():
        raise ConfigError(
            "there is no Prefect server to keep deployments: start one with `prefect server "
            "start`, and set PREFECT_API_URL to its API, such as http://127.0.0.1:4200/api"
        )
    async with get_client() as client:
        await answering(client)
        try:
            yield client
        except AlignTuneError:
            raise
        except httpx.HTTPStatusError as error:
            raise _refusal(error) from error
        except (httpx.HTTPError, PrefectException) as error:
            raise failed(error, "try again") from error


async def answering(client: PrefectClient, looks: Sequence[float] = ()) -> None:
    """Return when the server answers, which is looked for again after each of `looks` seconds.

    Raises:
        ServiceError: it does not.
    """
    for delay in (*looks, None):
        error = await client.api_healthcheck()
        if error is None:
            return
        if delay is None:
            url = str(client.api_url.copy_with(userinfo=b"")).rstrip("/")
            raise ServiceError(
                f"the Prefect server at {url} does not answer ({error}); start it, or change "
                "PREFECT_API_URL, without which a flow starts one for itself"
            ) from error
        LOG.warning("Prefect does not answer (%s); trying again in %g s", error, delay)
        await asyncio.sleep(delay)


def failed(error: Exception, remedy: str) -> ServiceError:
    """What a failure of the server's is to us."""
    said = (type(error).__name__, str(error))  # which may say nothing
    return ServiceError(f"the Prefect server failed: {': '.join(filter(None, said))}; {remedy}")


def _refusal(error: httpx.HTTPStatusError) -> AlignTuneError:
    reply = error.response
    try:
        says = reply.json()
        detail = says.get("detail") or says.get("exception_detail") or says
    except ValueError:
        detail = reply.text
    text = f"the Prefect server answered {reply.status_code}: {str(detail)[:500]}"
    if reply.is_client_error:
        return ConfigError(f"{text}; change what it names")
    return ServiceError(f"{text}; try again, and see the server's log")


async def runs_of(
    client: PrefectClient,
    deployment: UUID,
    types: Sequence[StateType],
    sort: FlowRunSort | None = None,
    limit: int | None = None,
    before: datetime | None = None,
) -> list[FlowRun]:
    """The runs of a deployment whose state is of one of these types, and which were to start before
    that time; Prefect gives at most 200."""
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))
    due = FlowRunFilterExpectedStartTime(before_=before) if before else None
    return await client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        flow_run_filter=FlowRunFilter(state=state, expected_start_time=due),
        sort=sort,
        limit=limit,
    )
