"""Waits for code that may take for ever, in threads that end with the process."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from aligntune.aside import begun
from aligntune.errors import ConfigError

T = TypeVar("T")


class Hung(ConfigError):
    """Something took longer than it may."""


def within(seconds: float | None, work: Callable[[], T]) -> T:
    """What `work` gives. Raises Hung after `seconds`; its thread is left behind."""
    if seconds is None:
        return work()
    future = begun(work)
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():  # one of its own
            raise
        raise Hung(f"after {seconds:g} s") from None


def settled(found: Any) -> Any:
    """`found`, or what it gives where it has to be awaited."""
    if not inspect.isawaitable(found):
        return found
    # Not in this thread, where an event loop may run already.
    return begun(lambda: _awaited(found)).result()


def _awaited(found: Awaitable[T]) -> T:
    async def main() -> T:
        return await found

    with asyncio.Runner(loop_factory=_loop) as runner:
        return runner.run(main())


def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_Daemons())
    return loop


class _Daemons(ThreadPoolExecutor):
    """For `asyncio.to_thread`: an exit would wait for the threads of a usual executor."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        return begun(lambda: fn(*args, **kwargs))
