"""`aligntune deploy`: a config's `deployment` and `schedules` as a deployment of Prefect.

What the config says is made so, and only what differs is touched: a schedule keeps its identity by
its slug, and one that is no longer in the config goes. The flow is named by its module, so whatever
has aligntune installed can run it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from aligntune.config.load import Loaded
from aligntune.config.overrides import flat, override
from aligntune.config.problems import Place
from aligntune.config.schedule import Deployment, Trigger
from aligntune.config.schedule_rules import slug_of
from aligntune.errors import ConfigError
from flows import times
from flows.api import server
from flows.automations import keep, mine, on_event, on_silence
from flows.pools import about_pool

# Each under the name of its flow.
ENTRYPOINTS = {"retrain": "flows.retrain.retrain", "post-train": "flows.post_train.post_train"}
PROMOTION = "flows.approval.promotion"
LARGEST = 524_288
"""Bytes of parameters that Prefect takes."""
TOGETHER = ("work_pool_name", "work_queue_name", "job_variables")
"""Fields that Prefect checks, and finds queues by, only where all of them are given."""


@dataclass(frozen=True)
class Wanted:
    """A deployment as a config wants it."""

    name: str
    entrypoint: str
    parameters: Mapping[str, Any]
    pool: str | None
    queue: str | None = None
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    schedules: Sequence[DeploymentScheduleCreate] = ()
    triggers: Sequence[tuple[Trigger, Mapping[str, Any]]] = ()
    """Each with the parameters of the runs that it starts."""


@dataclass(frozen=True)
class Deployed:
    """What became of one."""

    id: UUID
    name: str
    """`<flow>/<deployment>`."""
    did: Sequence[str]
    """Empty where it was so already."""
    pool: str | None


async def deploy(
    loaded: Loaded, paths: Sequence[Path], overrides: Sequence[str]
) -> tuple[list[Deployed], list[str]]:
    """Create or update the deployments of a config; what became of each, and warnings.

    Raises:
        ConfigError: there is no server, no such pool, the parameters are too large, or nothing
            would ever be promoted.
        ServiceError: the server does not answer.
    """
    chosen = loaded.config.deployment
    if chosen.flow == "retrain":
        from flows.retrain import prepared

        prepared(loaded.config)
    async with server() as client:
        variables, warnings = await about_pool(client, chosen)
        everything = _wanted(loaded, paths, overrides, variables)
        done = [await _apply(client, each) for each in everything]
        kept = {each.name for each in done}
        removed = await _leave(client, chosen_name(loaded), kept)
    ended = [
        f"schedule {schedule.slug}: its last time is over; it starts nothing any more"
        for schedule in everything[0].schedules
        if times.over(schedule)
    ]
    return done, [*warnings, *ended, *removed]


def chosen_name(loaded: Loaded) -> str:
    """What the deployment of a config is called."""
    config = loaded.config
    return config.deployment.name or str(config.logging.run_name)


def _wanted(
    loaded: Loaded, paths: Sequence[Path], overrides: Sequence[str], variables: Mapping[str, Any]
) -> list[Wanted]:
    config, name = loaded.config, chosen_name(loaded)
    deployment = config.deployment
    configs = list(deployment.configs) or [str(path.expanduser().absolute()) for path in paths]
    given = list(overrides)
    parameters = {
        "configs": configs, "overrides": given, "command": f"aligntune trigger {name}",
    }  # fmt: skip

    def own(at: tuple[str | int, ...], settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"overrides": given + _overrides(settings, at, loaded)} if settings else {}

    found = [
        Wanted(
            name,
            ENTRYPOINTS[deployment.flow],
            parameters,
            deployment.pool,
            deployment.queue,
            variables,
            deployment.tags,
            [
                times.wanted(
                    slug_of(index, schedule),
                    schedule,
                    own(("schedules", index, "set"), schedule.set),
                )
                for index, schedule in enumerate(config.schedules)
            ],
            [
                (trigger, own(("deployment", "triggers", index, "set"), trigger.set))
                for index, trigger in enumerate(deployment.triggers)
            ],
        )
    ]
    if config.retrain.approval == "required":
        found.append(_approval(deployment, name, variables))
    return found


def _approval(deployment: Deployment, name: str, variables: Mapping[str, Any]) -> Wanted:
    """The deployment of the runs that wait for somebody, who may take their time."""
    pool = deployment.approval_pool or deployment.pool
    same = pool == deployment.pool
    return Wanted(
        f"{name}-approval",
        PROMOTION,
        {},
        pool,
        deployment.queue if same else None,
        variables if same else {},
        deployment.tags,
    )


def _overrides(settings: Mapping[str, Any], at: tuple[str | int, ...], loaded: Loaded) -> list[str]:
    """A `set` as overrides; variables of the environment are read where the run is."""
    found = []
    for key, value in flat(settings).items():
        place: Place | None = loaded.places.get((*at, *_steps(settings, key)))
        if place is not None and place.reference is not None:
            found.append(f"{key}={place.reference}")
        else:
            found.append(override(key, value))
    return found


def _steps(settings: Mapping[str, Any], key: str) -> list[str]:
    """The keys, each of which may have dots in it, that `flat` made one of."""
    for name, value in settings.items():
        if name == key:
            return [name]
        if isinstance(value, dict) and key.startswith(f"{name}."):
            return [name, *_steps(value, key.removeprefix(f"{name}."))]
    return [key]


async def _apply(client: PrefectClient, wanted: Wanted) -> Deployed:
    flow = _flow(wanted.entrypoint)
    _check_size(wanted)
    flow_id = await client.create_flow_from_name(flow.name)
    name = f"{flow.name}/{wanted.name}"
    try:
        there = await client.read_deployment_by_name(name)
    except ObjectNotFound:
        there = None
    fields = _fields(flow, wanted)
    if there is None:
        made = await client.create_deployment(
            flow_id=flow_id, name=wanted.name, schedules=list(wanted.schedules), **fields
        )
        did = ["created"]
    else:
        made, did = there.id, await _update(client, there, fields)
        did += await _reschedule(client, there, wanted.schedules)
    automations = [on_event(made, name, *each) for each in wanted.triggers]
    automations += on_silence(made, name)
    changed = await keep(client, made, name, automations)
    return Deployed(made, name, did if there is None else [*did, *changed], wanted.pool)


def _flow(entrypoint: str) -> Flow[..., Any]:
    module, _, name = entrypoint.rpartition(".")
    return cast(Flow[..., Any], getattr(import_module(module), name))


def _check_size(wanted: Wanted) -> None:
    sizes = [wanted.parameters, *({**wanted.parameters, **s.parameters} for s in wanted.schedules)]
    largest = max(len(json.dumps(each).encode()) for each in sizes)
    if largest > LARGEST:
        raise ConfigError(
            f"{wanted.name}: its paths and overrides are {largest} bytes, and Prefect takes "
            f"{LARGEST}; put the settings into a config file"
        )


def _fields(flow: Flow[..., Any], wanted: Wanted) -> dict[str, Any]:
    return {
        "entrypoint": wanted.entrypoint,
        "description": flow.description,
        "parameters": dict(wanted.parameters),
        "parameter_openapi_schema": parameter_schema(flow).model_dump(),
        "enforce_parameter_schema": True,
        "tags": list(wanted.tags),
        "work_pool_name": wanted.pool,
        "work_queue_name": wanted.queue or ("default" if wanted.pool else None),
        "job_variables": dict(wanted.job_variables),
    }


async def _update(
    client: PrefectClient, there: DeploymentResponse, fields: Mapping[str, Any]
) -> list[str]:
    known = there.model_dump()
    changed = [
        name
        for name, value in fields.items()
        if name != "enforce_parameter_schema" and known[name] != value
    ]
    if not changed:
        return []
    sent = {name: fields[name] for name in changed}
    if set(changed) & set(TOGETHER):
        sent |= {name: fields[name] for name in TOGETHER}
    await client.update_deployment(there.id, DeploymentUpdate(**sent))
    return [f"updated: {', '.join(changed)}"]


async def _reschedule(
    client: PrefectClient, there: DeploymentResponse, wanted: Sequence[DeploymentScheduleCreate]
) -> list[str]:
    did = []
    known = {schedule.slug: schedule for schedule in there.schedules}
    slugs = {schedule.slug for schedule in wanted}
    for schedule in there.schedules:
        if schedule.slug not in slugs:
            await client.delete_deployment_schedule(there.id, schedule.id)
            did.append(f"removed: schedule {schedule.slug or times.in_words(schedule)}")
    for want in wanted:
        old = known.get(want.slug)
        if old is None:
            await client.create_deployment_schedules(there.id, [want])
            did.append(f"created: schedule {want.slug}")
        elif changed := times.differences(old, want):
            await client.update_deployment_schedule(
                there.id,
                old.id,
                active=want.active,
                schedule=want.schedule if "time" in changed else None,
                parameters=want.parameters,
            )
            did.append(f"updated: schedule {want.slug}: {', '.join(changed)}")
    return did


async def _leave(client: PrefectClient, name: str, kept: set[str]) -> list[str]:
    """Remove what the config made of the same name before: for another flow, or to approve."""
    did = []
    made = [(flow, entrypoint, name) for flow, entrypoint in ENTRYPOINTS.items()]
    for flow, entrypoint, own in [*made, ("promotion", PROMOTION, f"{name}-approval")]:
        full = f"{flow}/{own}"
        if full in kept:
            continue
        try:
            there = await client.read_deployment_by_name(full)
        except ObjectNotFound:
            continue
        if there.entrypoint != entrypoint:  # somebody else's
            continue
        for automation in (await mine(client, there.id, full)).values():
            await client.delete_automation(automation.id)
        await client.delete_deployment(there.id)
        did.append(f"{full}: removed, the config has it no more")
    return did
