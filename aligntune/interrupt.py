"""A request to stop, by SIGTERM, Ctrl-C or the end of a terminal, that lets the current step finish
and save."""

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType

_PR_SET_PDEATHSIG = 1


def _nothing() -> None: ...


def _never() -> bool:
    return False


_asked: ContextVar[Callable[[], bool]] = ContextVar("asked", default=_never)


def asked_to_stop() -> Callable[[], bool]:
    """What says whether someone asked to stop what is going on here."""
    return _asked.get()


@contextmanager
def heeding(stopping: Callable[[], bool]) -> Iterator[None]:
    """`asked_to_stop` is `stopping` within the block."""
    token = _asked.set(stopping)
    try:
        yield
    finally:
        _asked.reset(token)


@contextmanager
def stop_on_signals(
    at_each: Callable[[], None] = _nothing, at_once: Callable[[], None] = _nothing
) -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether someone asked to stop. A second Ctrl-C stops at once.

    Signals can only be handled in the main thread; elsewhere nobody asks. `at_each` is called at
    every signal, and `at_once` at the Ctrl-C that stops at once: both inside of the handler, so
    they may not wait for anything.
    """
    # A list and no Event: signals come several at once, a handler may interrupt itself, and an
    # Event that is set inside of its own `set` waits for ever. Of handlers that interrupt each
    # other only one draws the 0: `next` of a count is a single step.
    asked: list[int] = []
    draw = itertools.count()

    def stopping() -> bool:
        return bool(asked)

    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave(terminals)
        at_each()
        if asked and number == signal.SIGINT:
            at_once()
            raise KeyboardInterrupt
        asked.append(number)
        if next(draw) == 0:
            _say(f"{signal.Signals(number).name}: finishing this step, then saving\n")

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        with heeding(stopping):
            yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    """Past every log and console: the code that the signal interrupted may hold their locks."""
    with suppress(OSError):  # nobody may be there to read it
        os.write(2, text.encode())


def _leave(terminals: Sequence[int]) -> None:
    """Write to nowhere in the place of terminals that are gone: what is written there would fail,
    and with it what saves and then says so."""
    for stream in terminals:
        if not os.isatty(stream):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)


def stop_with(parent: int, number: int = signal.SIGTERM) -> None:
    """Ask the kernel for a signal when the parent process dies, so that killing it leaves none of
    its children behind. It is sent when the thread that started this process ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before we asked
        raise SystemExit(75)
