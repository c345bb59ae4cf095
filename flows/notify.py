"""Telling people how a run ended, through the notification blocks that a config names.

A block's secret stays in Prefect: no log line and no error here has an address or a text of it.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import prefect.blocks.notifications  # noqa: F401  # makes the built-in blocks known
from prefect import Flow, get_client
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun, State
from prefect.utilities.urls import url_for

from aligntune.config.load import load
from aligntune.config.schedule import Notification
from aligntune.errors import AlignTuneError, ConfigError, public
from flows.ending import STATES, Ending, plain

LOG = logging.getLogger("aligntune.flow")

PATIENCE = 60.0
"""Seconds that a message may take to be sent."""
TALKATIVE = ("httpx", "httpcore", "urllib3", "apprise")
"""Loggers that write addresses, which of a webhook are a secret."""
SILENT = logging.CRITICAL + 1


async def check_blocks(notifications: Sequence[Notification]) -> None:
    """That Prefect has every block that is named.

    Raises:
        ConfigError: one is missing, or cannot send messages.
    """
    for index, notification in enumerate(notifications):
        try:
            await _loaded(notification.block)
        except ConfigError as error:
            raise ConfigError(f"notifications[{index}].block: {error}") from None


async def tell(notifications: Sequence[Notification], ending: Ending) -> None:
    """Send the ending to those whom it is for. What cannot be sent is a warning."""
    wanted = [entry.block for entry in notifications if ending.outcome in entry.on]
    with _discreet():
        await asyncio.gather(*(_sent(block, ending) for block in wanted))


async def tell_failure(flow: Flow[..., object], flow_run: FlowRun, state: State[object]) -> None:
    """A hook of flows: tells that a run has failed, crashed or was cancelled."""
    parameters = flow_run.parameters
    try:
        paths = [Path(path) for path in parameters["configs"]]
        config = load(paths, parameters.get("overrides") or ())
    except (AlignTuneError, KeyError):
        return  # then nobody is known whom to tell
    if await _said_itself(flow_run):
        return
    stopped = state.is_cancelled() or state.is_cancelling()
    message = public(state.message or state.type.value).removeprefix(
        "Flow run encountered an exception: "
    )
    ending = Ending(
        outcome="stopped" if stopped else "failed",
        why=f"{flow.name}: {message}",
        run=config.logging.run_name or config.algo,
        links={"Prefect": url} if (url := page_of(flow_run)) else {},
    )
    await tell(config.notifications, ending)


async def _said_itself(flow_run: FlowRun) -> bool:
    """Whether the flow had time to end as interrupted, and has told so."""
    async with get_client() as client:
        state = (await client.read_flow_run(flow_run.id)).state
    return state is not None and state.name == STATES["stopped"]


def page_of(flow_run: FlowRun) -> str | None:
    """The flow run's page in Prefect, where that has one."""
    return url_for(flow_run)


async def _sent(name: str, ending: Ending) -> None:
    try:
        block = await _loaded(name)
        async with asyncio.timeout(PATIENCE):
            await _notify(block, plain(ending), ending.title)
    except ConfigError as error:
        LOG.warning("nobody was told by %s: %s", name, error)
    except httpx.HTTPStatusError as error:
        LOG.warning("nobody was told by %s: it answered %d", name, error.response.status_code)
    except Exception as error:  # noqa: BLE001  # blocks are code of others, and the run is done
        LOG.warning("nobody was told by %s: %s", name, type(error).__name__)


async def _notify(block: NotificationBlock, body: str, subject: str) -> None:
    with block.raise_on_failure():
        sending = block.notify(body, subject)
        if asyncio.iscoroutine(sending):
            await sending


async def _loaded(name: str) -> NotificationBlock:
    remedy = "`prefect block ls` lists those that there are"
    try:
        block = await Block.aload(name)
    except ValueError:
        raise ConfigError(f"Prefect has no block {name!r}; {remedy}") from None
    except (TypeError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"the block {name!r} cannot be loaded ({type(error).__name__}); {remedy}"
        ) from None
    if not isinstance(block, NotificationBlock):
        raise ConfigError(f"the block {name!r} sends no messages; {remedy}")
    return block


@contextmanager
def _discreet() -> Iterator[None]:
    """Addresses are not logged while the block runs."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(SILENT)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
