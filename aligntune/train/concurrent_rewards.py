"""Rewards that wait for something else than this process's Python run at the same time."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from threading import BoundedSemaphore, Lock
from typing import Any

from aligntune.aside import begun
from aligntune.config.rewards import Reward
from aligntune.rewards import REWARDS
from aligntune.rewards.pretrained import chosen
from aligntune.train.reward_functions import Judge

WORKERS = 8
"""Rewards that run at the same time."""
Later = Callable[..., Coroutine[Any, Any, list[float | None]]]


def at_once(judges: Sequence[Judge], rewards: Sequence[Reward]) -> list[Judge | Later]:
    """The judges, those that wait as coroutine functions, which TRL starts together.

    That are models, the user's own functions, and those whose work other processes do; the rest
    would only share this process's Python. Models on one device wait for each other. The scores
    are in the order of the rewards in any case. `inspect.unwrap` gives the judge itself.
    """
    waiting = [_waits(reward) for reward in rewards]
    if sum(waiting) < 2:
        return list(judges)
    slots = BoundedSemaphore(WORKERS)
    devices = {chosen(reward.device): Lock() for reward in rewards}
    return [
        _later(judge, devices[chosen(reward.device)] if reward.model_name else Lock(), slots)
        if waits
        else judge
        for judge, reward, waits in zip(judges, rewards, waiting, strict=True)
    ]


def _waits(reward: Reward) -> bool:
    if ":" in reward.reward_type or reward.model_name:
        return True
    known = REWARDS.get(reward.reward_type)
    return known is not None and known.outside


def _later(judge: Judge, device: Lock, slots: BoundedSemaphore) -> Later:
    @wraps(judge)
    async def later(**given: Any) -> list[float | None]:
        def work() -> list[float | None]:
            with device, slots:
                return judge(**given)

        return await asyncio.wrap_future(begun(work))

    return later
