"""What Prefect has of ours: deployments listed, started, paused, and the events they wait for."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.schemas.events import Event, Resource

from aligntune import errors
from aligntune.config.load import check_more
from aligntune.errors import AlignTuneError, ConfigError, unknown
from flows import times
from flows.api import runs_of, server
from flows.deploy import ENTRYPOINTS, PROMOTION

LOOK = 2.0
"""Seconds between looks at a run that is watched."""
PAGE = 100
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


@dataclass(frozen=True)
class Listed:
    """A deployment as a person wants to see it."""

    name: str
    flow: str
    schedules: Sequence[str]
    next_run: str | None
    """When it runs next, ISO 8601 in UTC."""
    pool: str | None
    paused: bool
    served: bool
    """Whether a worker or a serving process has asked for its runs lately."""
    last_run: str | None
    last_state: str | None
    last_reason: str | None

    def record(self) -> dict[str, Any]:
        return asdict(self)


async def listed() -> list[Listed]:
    """Every deployment that aligntune made, by name."""
    async with server() as client:
        found = [await _listed(client, each) for each in await _ours(client)]
    return sorted(found, key=lambda each: each.name)


async def _ours(client: PrefectClient) -> list[DeploymentResponse]:
    found: list[DeploymentResponse] = []
    while page := await client.read_deployments(limit=PAGE, offset=len(found)):
        found += page
    entrypoints = {*ENTRYPOINTS.values(), PROMOTION}
    return [each for each in found if each.entrypoint in entrypoints]


async def _listed(client: PrefectClient, deployment: DeploymentResponse) -> Listed:
    flow = await client.read_flow(deployment.flow_id)
    begun = [each for each in StateType if each not in (StateType.SCHEDULED, StateType.PENDING)]
    last = await runs_of(client, deployment.id, begun, FlowRunSort.START_TIME_DESC, 1)
    coming = await runs_of(
        client, deployment.id, [StateType.SCHEDULED], FlowRunSort.EXPECTED_START_TIME_ASC, 1
    )
    state = last[0].state if last else None
    due = coming[0].expected_start_time if coming and not deployment.paused else None
    return Listed(
        name=deployment.name,
        flow=flow.name,
        schedules=[
            times.in_words(schedule)
            for schedule in sorted(deployment.schedules, key=lambda each: each.slug or "")
        ],
        next_run=due.astimezone(UTC).isoformat(timespec="seconds") if due else None,
        pool=deployment.work_pool_name,
        paused=deployment.paused,
        served=_served(deployment),
        last_run=last[0].name if last else None,
        last_state=state.name if state else None,
        last_reason=_reason(state) if state else None,
    )


def _reason(state: State[Any]) -> str | None:
    """Why a run ended as it did, in our own words where they are there."""
    return re.sub(r"^Flow run encountered an exception: \w+: ", "", state.message or "") or None


async def trigger(name: str, overrides: Sequence[str]) -> tuple[FlowRun, str | None]:
    """Start a run of a deployment now; with it comes what has to run first, where nothing does.

    Raises:
        ConfigError: there is no such deployment, or the overrides are wrong, as far as its config
            can be read here.
    """
    async with server() as client:
        deployment = await _named(client, name)
        given = deployment.parameters.get("overrides", ())
        check_more(list(map(Path, deployment.parameters.get("configs", ()))), given, overrides)
        own = {"overrides": [*given, *overrides]}
        run = await client.create_flow_run_from_deployment(
            deployment.id, parameters=own if overrides else {}
        )
    if _served(deployment):
        return run, None
    pool = deployment.work_pool_name
    missing = f"prefect worker start --pool {pool}" if pool else "aligntune deploy --serve"
    return run, f"it waits for `{missing}`, which was not seen lately"


def _served(deployment: DeploymentResponse) -> bool:
    return str(getattr(deployment.status, "value", deployment.status)) == "READY"


async def _named(client: PrefectClient, name: str) -> DeploymentResponse:
    ours = await _ours(client)
    for deployment in ours:
        if deployment.name == name:
            return deployment
    if not ours:
        raise ConfigError(
            f"there is no deployment {name!r}, and no other; make one with `aligntune deploy`"
        )
    raise ConfigError(unknown("deployment", name, {each.name for each in ours}))


async def watch(run: FlowRun) -> AsyncIterator[State[Any]]:
    """Every new state of a run, the last of which is its end."""
    seen = None
    async with server() as client:
        while True:
            state = (await client.read_flow_run(run.id)).state
            if state is not None and state.id != seen:
                seen = state.id
                yield state
                if state.type in ENDED:
                    return
            await asyncio.sleep(LOOK)


def exit_code(state: State[Any]) -> int:
    """What a command that waited for this end exits with: as if it had run here."""
    if state.type == StateType.COMPLETED:
        return 0
    if state.type == StateType.CANCELLED:
        return errors.Interrupted.exit_code
    if state.type == StateType.CRASHED:
        return errors.ServiceError.exit_code
    named = re.match(r"Flow run encountered an exception: (\w+): ", state.message or "")
    kind = getattr(errors, named[1], None) if named else None
    if isinstance(kind, type) and issubclass(kind, AlignTuneError):
        return kind.exit_code
    return AlignTuneError.exit_code


async def pause(name: str, *, paused: bool) -> bool:
    """Whether that changed anything: its schedules start nothing while it is paused."""
    async with server() as client:
        deployment = await _named(client, name)
        if deployment.paused == paused:
            return False
        await (client.pause_deployment if paused else client.resume_deployment)(deployment.id)
        return True


async def emit(event: str, resource: str, payload: Mapping[str, Any]) -> UUID:
    """Tell Prefect of an event; returns its id."""
    told = Event(
        event=event,
        occurred=datetime.now(UTC),
        resource=Resource({"prefect.resource.id": resource}),
        payload=dict(payload),
    )
    async with server() as client:
        await client.request("POST", "/events", json=[told.model_dump(mode="json")])
    return told.id
