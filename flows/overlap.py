"""One run of a deployment at a time: another is refused, or waits, as `deployment.overlap` says.

A kernel lock in the output directory belongs to the run that goes on, and dies with its process.
Prefect is asked besides, for runs on hosts that do not share the directory. Prefect's own limits
per deployment are no help: they end a run when the server misses the renewal of its lease.
"""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import httpx
from filelock import FileLock, Timeout
from prefect import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.states import Cancelled, Crashed, Running

from aligntune.artifacts import make_folder, write_atomic
from aligntune.config.load import load
from aligntune.config.run import RunConfig
from aligntune.errors import AlignTuneError
from aligntune.paths import Paths
from flows.api import runs_of

LOG = logging.getLogger("aligntune.flow")

PAUSE = 5.0
"""Seconds between looks of a run that waits for another."""
LOOKS, LOOK = 20, 0.25
"""How often a lock is tried that another run may only look at, and seconds between."""
WAITING = "Waiting"
"""The state of one that does."""
OVERLAPPING = "Overlapping"
"""The state of one that was refused."""

Body = Callable[..., Awaitable[Any]]


class Overlapping(AlignTuneError):
    """Another run of the deployment goes on."""

    exit_code = 75


@dataclass(frozen=True)
class _Holder:
    """What the lock's file says of the run that has it, or had it last."""

    id: str
    name: str
    host: str
    ended: bool = False
    """Whether it gave the lock back: one that did not was killed."""

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


def alone(body: Body) -> Body:
    """A flow's body that does nothing while another run of the same deployment goes on.

    A run that no deployment has, or that is part of another, is never in the way. The first
    parameters are `configs` and `overrides`.
    """

    @wraps(body)
    async def body_alone(
        configs: list[str], overrides: Sequence[str] = (), command: str = ""
    ) -> Any:
        context = FlowRunContext.get()
        run = context.flow_run if context else None
        if run is None or run.deployment_id is None or run.parent_task_run_id is not None:
            return await body(configs, overrides, command)
        config = load([Path(path) for path in configs], overrides)
        try:
            async with _turn(run, run.deployment_id, config):
                return await body(configs, overrides, command)
        except Overlapping as error:
            LOG.warning("%s", error)
            return Cancelled(name=OVERLAPPING, message=str(error))

    return body_alone


@asynccontextmanager
async def _turn(run: FlowRun, deployment: UUID, config: RunConfig) -> AsyncIterator[None]:
    """While the block runs, no other run of the deployment does.

    Raises:
        Overlapping: another goes on, and this one is not to wait for it.
    """
    folder = Paths.of(config).root / ".locks"
    make_folder(folder)
    lock, record = FileLock(folder / f"deployment-{deployment}"), folder / f"{deployment}.json"
    me = _Holder(str(run.id), run.name, socket.gethostname())
    told = None
    while in_the_way := await _taken(lock, record, me, deployment):
        _refuse(config.deployment.overlap, in_the_way)
        if told != in_the_way:
            told = in_the_way
            await _say(me, Running(name=WAITING, message=f"{in_the_way} goes on"))
        await asyncio.sleep(PAUSE)
    if told:
        await _say(me, Running())
    try:
        yield
    finally:
        _write(record, _Holder(me.id, me.name, me.host, ended=True))
        lock.release()


def _refuse(overlap: Literal["refuse", "queue"], by: str) -> None:
    if overlap == "refuse":
        raise Overlapping(
            f"{by} goes on, and runs of this deployment do not overlap; trigger it again when that "
            "has ended, or set `deployment.overlap: queue`"
        )


async def _taken(lock: FileLock, record: Path, me: _Holder, deployment: UUID) -> str | None:
    """The run that is in the way of this one; None if this one has the lock from now on."""
    if not await _locked(lock, record):
        holder = _read(record)
        return str(holder) if holder and not holder.ended else "another run"
    try:
        last = _read(record)
        for other in await _going_on(deployment, me):
            if last is None or str(other.id) != last.id:
                lock.release()
                return f"{other.name} ({other.id})"
            if not last.ended and last.host == me.host:
                await _bury(last)
            elif not last.ended:
                lock.release()  # the lock may not reach across hosts
                return str(last)
    except BaseException:
        lock.release()
        raise
    _write(record, me)
    return None


async def _locked(lock: FileLock, record: Path) -> bool:
    """Whether this run has the lock now. Of two that start at once each has it for the moment in
    which it asks Prefect, and neither may be refused because of that."""
    for _ in range(LOOKS):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            holder = _read(record)
            if holder and not holder.ended:
                return False
            await asyncio.sleep(LOOK)
        else:
            return True
    return False


async def _going_on(deployment: UUID, me: _Holder) -> list[FlowRun]:
    """The deployment's runs that started before this one and have not ended, for all that Prefect
    knows; none where it does not answer."""
    active = (StateType.RUNNING, StateType.CANCELLING)
    try:
        async with get_client() as client:
            runs = await runs_of(client, deployment, active)
    except (httpx.HTTPError, PrefectException) as error:
        LOG.warning("Prefect could not say what else runs (%s); going on", error)
        return []
    order = {str(run.id): (run.start_time or datetime.now(UTC), str(run.id)) for run in runs}
    mine = order.get(me.id, (datetime.now(UTC), me.id))
    earlier = [run for run in runs if str(run.id) != me.id and order[str(run.id)] < mine]
    return sorted(earlier, key=lambda run: order[str(run.id)])


async def _bury(last: _Holder) -> None:
    """Prefect still takes a run for alive whose process left the lock by dying."""
    LOG.warning("%s was killed; the stages that it finished are reused", last)
    message = "its process was killed: it holds its lock no more"
    await _say(last, Crashed(message=message))


async def _say(run: _Holder, state: State[Any]) -> None:
    try:
        async with get_client() as client:
            await client.set_flow_run_state(UUID(run.id), state, force=True)
    except (httpx.HTTPError, PrefectException) as error:
        LOG.warning("Prefect was not told that %s is %s: %s", run, state.name, error)


def _read(record: Path) -> _Holder | None:
    try:
        return _Holder(**json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # nobody has had it, or it is being written
        return None


def _write(record: Path, holder: _Holder) -> None:
    write_atomic(record, json.dumps(asdict(holder)))
