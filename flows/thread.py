"""Blocking work beside an event loop, that never goes on after the coroutine that asked for it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

from aligntune.launch import GRACE

T = TypeVar("T")


async def in_thread(work: Callable[[Callable[[], bool]], T], stopping: Callable[[], bool]) -> T:
    """What `work(stopping)` returns, from a thread of its own.

    If this coroutine is cancelled, or a signal's exception goes through it, `stopping` says so from
    then on, and the exception goes on when the work has ended. The thread is a daemon, so work
    that does not look at `stopping` cannot keep the process for longer than the grace period.
    """
    left = threading.Event()
    result: Future[T] = Future()

    def body() -> None:
        try:
            result.set_result(work(lambda: left.is_set() or stopping()))
        except BaseException as error:  # noqa: BLE001  # raised again where the result is awaited
            result.set_exception(error)

    thread = threading.Thread(target=copy_context().run, args=(body,), daemon=True)
    try:
        thread.start()
        return await asyncio.shield(asyncio.wrap_future(result))
    finally:
        left.set()
        if thread.ident is not None:
            thread.join(2 * GRACE)  # the child's own grace period, and ours
