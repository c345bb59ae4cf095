"""`aligntune deploy --serve`: this process runs what its deployments are scheduled for."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.states import Cancelled

from flows.api import runs_of
from flows.deploy import Deployed

LOG = logging.getLogger("aligntune.flow")


class _Existing(RunnerDeployment):
    """A deployment that is there already: a runner would create it anew, schedules and all."""

    known: UUID

    async def aapply(self, *_: object, **__: object) -> UUID:
        return self.known


def serve(deployments: Sequence[Deployed]) -> None:
    """Run what is scheduled or triggered, until somebody stops this process."""
    asyncio.run(_serve(deployments))


async def _serve(deployments: Sequence[Deployed]) -> None:
    # Paused is what a person has paused: not what nobody serves for a while.
    runner = Runner(name=deployments[0].name.partition("/")[2], pause_on_shutdown=False)
    for each in deployments:
        await _skip_missed(each)
        name = each.name.partition("/")[2]
        await runner.aadd_deployment(_Existing(name=name, known=each.id))
    await runner.start()


async def _skip_missed(deployment: Deployed) -> None:
    """Of the times that passed while nobody served, only the latest of each schedule is made up
    for: another schedule's runs may have other settings."""
    latest: dict[UUID | None, UUID] = {}
    skipped: set[UUID] = set()
    message = "nobody served the deployment at its time; the schedule's latest time is made up for"
    async with get_client() as client:
        while True:
            order, now = FlowRunSort.EXPECTED_START_TIME_DESC, datetime.now(UTC)
            runs = await runs_of(client, deployment.id, [StateType.SCHEDULED], order, before=now)
            late = [run for run in runs if run.auto_scheduled and run.id not in skipped]
            missed = [run for run in late if latest.setdefault(_schedule(run), run.id) != run.id]
            for run in missed:
                skipped.add(run.id)
                await client.set_flow_run_state(run.id, Cancelled(name="Missed", message=message))
            if not missed:
                break
    if latest:
        LOG.info(
            "%s: %d scheduled times were missed, %d are made up for: the latest of each schedule",
            deployment.name, len(skipped) + len(latest), len(latest),
        )  # fmt: skip


def _schedule(run: FlowRun) -> UUID | None:
    return run.created_by.id if run.created_by else None
