"""Work in threads that nobody has to wait for: not who asks to stop, nor the end of the process."""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import Any, NoReturn, TypeVar

from aligntune.errors import Interrupted
from aligntune.interrupt import asked_to_stop

T = TypeVar("T")
_LOOK = 0.1
"""Seconds between looks at whether someone asked to stop."""
_going: set[Future[Any]] = set()
"""What `promptly` began and has not ended."""


def begun(work: Callable[[], T]) -> "Future[T]":
    """`work` in a thread of its own, which an exit does not wait for. The future has whatever it
    raises, SystemExit too."""
    future: Future[T] = Future()
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def promptly(work: Callable[[], T], doing: str) -> T:
    """What `work` gives, which may wait for a server, unless someone asks to stop: then it is left
    behind, so it has to be something that may be broken off. `doing` is for the message.

    Raises:
        Interrupted: someone asked to stop.
        BaseException: whatever `work` raises.
    """
    stopping, future = asked_to_stop(), None
    while not stopping():
        if future is None:
            future = begun(work)
            _going.add(future)
            future.add_done_callback(_going.discard)
        if wait([future], _LOOK).done:
            return future.result()
    raise Interrupted(f"stopped while {doing}; the same command continues")


def pause(seconds: float, doing: str) -> None:
    """Sleep. Raises like `promptly`."""
    promptly(partial(time.sleep, seconds), doing)


def leave(code: int) -> NoReturn:
    """End the process, and what was left behind at once: else its own threads, such as those of an
    upload, would be waited for to the end of their work."""
    if _going:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
