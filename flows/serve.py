"""`aligntune deploy --serve`: this process runs what its deployments are scheduled for."""

import asyncio
import logging
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.states import Cancelled

from aligntune.launch import GRACE
from flows.api import runs_of
from flows.deploy import Deployed

if TYPE_CHECKING:
    from prefect.runner._process_manager import ProcessManager

LOG = logging.getLogger("aligntune.flow")

PATIENCE = 2 * GRACE
"""Seconds that runs may take to end after they were asked to."""
LOOK = 0.1


class _Existing(RunnerDeployment):
    """A deployment that is there already: a runner would create it anew, schedules and all."""

    known: UUID

    async def aapply(self, *_: object, **__: object) -> UUID:
        return self.known


class _Serving(Runner):
    """A runner that lets what it runs save when it is asked to stop. Prefect's own kills it, and
    its runs stay `Running`."""

    _ending: asyncio.Task[None] | None = None

    def handle_sigterm(self, *_: object, **__: object) -> None:
        asyncio.get_running_loop().call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self.started:
            raise SystemExit(0)
        if self._ending is None:
            LOG.info("stopping; what runs finishes its step and saves")
            loop = asyncio.get_running_loop()
            loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C stops at once
            self._ending = loop.create_task(self._stop())

    async def _stop(self) -> None:
        self._scheduled_run_poller.stopping = True
        await self._ended(self._process_manager)
        await self.astop()
        while True:  # what was about to start
            await asyncio.sleep(LOOK)
            await self._ended(self._process_manager)

    async def _ended(self, going: "ProcessManager") -> None:
        """Ask all to stop, and wait."""
        end = time.monotonic() + PATIENCE
        for run in going.flow_run_ids():
            if found := going.get(run):
                with suppress(ProcessLookupError):  # it has just ended
                    found.graceful_kill()
        while going.flow_run_ids() and time.monotonic() < end:
            await asyncio.sleep(LOOK)

    async def start(self, run_once: bool = False, webserver: bool | None = None) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                loop.add_signal_handler(number, self.handle_sigterm)
        await super().start(run_once, webserver)


def serve(deployments: Sequence[Deployed]) -> None:
    """Run what is scheduled or triggered, until somebody stops this process."""
    asyncio.run(_serve(deployments))


async def _serve(deployments: Sequence[Deployed]) -> None:
    # Paused is what a person has paused: not what nobody serves for a while.
    runner = _Serving(name=deployments[0].name.partition("/")[2], pause_on_shutdown=False)
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
