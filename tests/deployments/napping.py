"""A flow that takes its turn like ours, and sleeps for as many seconds as `train.max_steps`."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from aligntune.config.load import load
from flows.overlap import alone


@flow(name="nap", persist_result=False)
@alone
async def nap(configs: list[str], overrides: Sequence[str] = (), command: str = "") -> None:
    config = load([Path(path) for path in configs], overrides)
    await asyncio.sleep(config.train.max_steps)
