"""What Prefect does by itself for a deployment: it runs it on events, and notices killed runs.

A run sends a heartbeat every three minutes (`PREFECT_FLOWS_HEARTBEAT_FREQUENCY`); one whose process
or host died sends none, and would be `Running` for ever.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import get_current_settings

from aligntune.config.schedule import Trigger

LOST_AFTER = 600
"""Seconds without a heartbeat until a run is lost: three times Prefect's default, and a minute."""
MISSED = 3
"""Heartbeats that a run may miss where they are rarer than that."""
HEARTBEAT = "prefect.flow-run.heartbeat"


async def keep(
    client: PrefectClient, deployment: UUID, name: str, wanted: Sequence[AutomationCore]
) -> list[str]:
    """Make the automations of a deployment what is wanted; says what that changed.

    One that somebody has paused stays paused.
    """
    did = []
    there = await mine(client, deployment, name)
    for automation in wanted:
        known = there.pop(automation.name, None)
        what = automation.name.removeprefix(f"{name}: ")
        if known is None:
            await client.create_automation(automation)
            did.append(f"created: {what}")
        elif _plain(known) != _plain(automation):
            change = automation.model_dump(exclude={"enabled", "owner_resource"})
            await client.update_automation(
                known.id, AutomationCore(**change, enabled=known.enabled)
            )
            did.append(f"updated: {what}")
    for automation in there.values():
        await client.delete_automation(automation.id)
        did.append(f"removed: {automation.name.removeprefix(f'{name}: ')}")
    return did


async def mine(client: PrefectClient, deployment: UUID, name: str) -> dict[str, Automation]:
    """The automations that were made for a deployment, by name."""
    found = await client.read_resource_related_automations(_resource(deployment))
    return {entry.name: entry for entry in found if entry.name.startswith(f"{name}: ")}


def on_event(
    deployment: UUID, name: str, trigger: Trigger, parameters: Mapping[str, Any]
) -> AutomationCore:
    """Runs the deployment at an event."""
    about = f" of {trigger.resource}" if trigger.resource else ""
    resource = {"prefect.resource.id": [trigger.resource]} if trigger.resource else {}
    return AutomationCore(
        name=f"{name}: on {trigger.event}{about}",
        description=f"Runs {name} at this event.",
        trigger=EventTrigger(
            expect={trigger.event},
            match=ResourceSpecification.model_validate(resource),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[RunDeployment(deployment_id=deployment, parameters=dict(parameters) or None)],
        owner_resource=_resource(deployment),
    )


def on_silence(deployment: UUID, name: str) -> list[AutomationCore]:
    """Marks a run as crashed that has sent no heartbeat for a while and has not ended; nothing
    where `PREFECT_FLOWS_HEARTBEAT_FREQUENCY` turns heartbeats off."""
    every = get_current_settings().flows.heartbeat_frequency
    if every is None:
        return []
    patience = max(LOST_AFTER, MISSED * every)
    found = AutomationCore(
        name=f"{name}: lost",
        description="Marks a run as Crashed whose process was killed.",
        trigger=EventTrigger(
            after={HEARTBEAT, "prefect.flow-run.Running", "prefect.flow-run.Waiting"},
            expect={"prefect.flow-run.*"},
            match=ResourceSpecification.model_validate(
                {"prefect.resource.id": ["prefect.flow-run.*"]}
            ),
            match_related=ResourceSpecification.model_validate(
                {"prefect.resource.id": [_resource(deployment)]}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=patience),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=f"no heartbeat for {patience} s: its process or host was killed",
            )
        ],
        owner_resource=_resource(deployment),
    )
    return [found]


def _resource(deployment: UUID) -> str:
    return f"prefect.deployment.{deployment}"


def _plain(automation: AutomationCore) -> dict[str, Any]:
    """What makes an automation what it is."""
    shown = automation.model_dump(
        mode="json", include={"description", "trigger", "actions"}, exclude_none=True
    )
    trigger = shown["trigger"]
    for name in ("after", "expect", "for_each"):
        trigger[name] = sorted(trigger[name])
    for name in ("match", "match_related"):
        trigger[name] = {
            key: [value] if isinstance(value, str) else value
            for key, value in trigger[name].items()
        }
    return shown
