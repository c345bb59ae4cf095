"""What a flow run shows while it goes on: how far a stage is, and where MLflow has the run.

Rare and in the background, so that it neither fails nor holds up what it is about.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from prefect.artifacts import (
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    aupdate_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from aligntune.console import clock
from aligntune.heartbeat import Standing
from aligntune.session import Session
from flows.artifacts import kept, key

EVERY = 10.0
"""Seconds between two updates of a stage's progress."""
LOOK = 0.5
"""Seconds between looks for MLflow's id of the run."""


class Shown:
    """How far one stage is: a bar, and a page with the last numbers."""

    def __init__(self, session: Session, label: str) -> None:
        self._session = session
        self._label = label
        self._standing: Standing | None = None
        self._told: Standing | None = None
        self._first: tuple[float, int] | None = None
        self._bar: UUID | None = None
        self._page: UUID | None = None

    def __call__(self, done: int, total: int, shown: Mapping[str, float]) -> None:
        """Takes note; may be called in any thread."""
        self._standing = Standing(done, total, dict(shown))
        if self._first is None:
            self._first = time.monotonic(), done

    async def keep_showing(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self.show()

    async def show(self) -> None:
        standing = self._standing
        if standing is None or standing == self._told or not standing.total:
            return
        self._told = standing
        await kept(self._show(standing))

    async def finish(self) -> None:
        """A bar that is there is full."""
        standing = self._standing
        if self._bar is not None and standing is not None:
            await kept(self._show(Standing(standing.total, standing.total, standing.shown)))

    async def _show(self, standing: Standing) -> None:
        percent, says, page = _percent(standing), self._says(standing), self._text(standing)
        if self._bar is None or self._page is None:
            base = key(self._session, self._label)
            self._bar = await acreate_progress_artifact(percent, f"{base}-progress", says)
            self._page = await acreate_markdown_artifact(page, key=f"{base}-live", description=says)
            return
        await aupdate_progress_artifact(self._bar, percent, says)
        async with get_client() as client:
            update = ArtifactUpdate(data=page, description=says)
            await client.update_artifact(self._page, update)

    def _says(self, standing: Standing) -> str:
        """`loss 0.6931  reward 0.5  12/60, 2:29 left`."""
        values = [f"{name} {value:.4g}" for name, value in standing.shown.items()]
        return "  ".join([*values, f"{standing.done}/{standing.total}{self._left(standing)}"])

    def _left(self, standing: Standing) -> str:
        """From the speed since this process began: a resumed stage begins in the middle."""
        if (
            self._first is None
            or standing.done <= self._first[1]
            or standing.done >= standing.total
        ):
            return ""
        since, before = self._first
        each = (time.monotonic() - since) / (standing.done - before)
        return f", {clock(each * (standing.total - standing.done))} left"

    def _text(self, standing: Standing) -> str:
        rows = {"done": f"{standing.done} of {standing.total}"}
        if left := self._left(standing):
            rows["left"] = left.removeprefix(", ").removesuffix(" left")
        rows |= {name.replace("|", " "): f"{value:.6g}" for name, value in standing.shown.items()}
        lines = [f"# {self._label}", "", "| | now |", "| --- | ---: |"]
        return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items())])


def _percent(standing: Standing) -> float:
    return min(100.0, 100.0 * standing.done / standing.total)


@asynccontextmanager
async def showing(session: Session, label: str) -> AsyncIterator[Shown]:
    """Shows a stage in Prefect while the block runs, if that takes a while."""
    shown = Shown(session, label)
    async with _beside(shown.keep_showing()):
        yield shown
    await shown.finish()


@asynccontextmanager
async def linked(session: Session) -> AsyncIterator[None]:
    """A link to the pipeline's MLflow run, where that has an address, as soon as there is one."""
    link = _Link(session)
    try:
        async with _beside(link.wait()):
            yield
    finally:
        await link.make()


class _Link:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._made = False

    async def wait(self) -> None:
        while not self._made:
            await self.make()
            await asyncio.sleep(LOOK)

    async def make(self) -> None:
        url = None if self._made else self._session.run_url(self._session.mlflow_run)
        if url is None:
            return
        self._made = True
        text, name = f"MLflow run {self._session.folder.name}", key(self._session, "mlflow")
        await kept(acreate_link_artifact(url, link_text=text, key=name))


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """`work` goes on beside the block, and ends with it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
