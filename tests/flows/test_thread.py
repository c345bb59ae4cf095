"""Work in a thread beside an event loop: it is told to stop, and waited for."""

import asyncio
import gc
import signal
import threading
import time

import pytest

from flows.thread import in_thread


def never():
    return False


def test_it_returns_what_the_work_returns():
    assert asyncio.run(in_thread(lambda stopping: stopping(), never)) is False
    assert asyncio.run(in_thread(lambda stopping: stopping(), lambda: True)) is True


def test_it_raises_what_the_work_raises():
    def work(stopping):
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        asyncio.run(in_thread(work, never))


class Worker:
    """Works until it is told to stop, then takes a moment to save."""

    def __init__(self):
        self.began, self.saved = threading.Event(), False

    def __call__(self, stopping):
        self.began.set()
        while not stopping():
            time.sleep(0.01)
        time.sleep(0.2)
        self.saved = True


def test_a_cancelled_caller_goes_on_only_when_the_work_has_saved():
    worker = Worker()

    async def cancelled():
        task = asyncio.create_task(in_thread(worker, never))
        await asyncio.to_thread(worker.began.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return worker.saved

    assert asyncio.run(cancelled())


class Raised(BaseException):
    """Like the exceptions that Prefect's signal handler raises."""


@pytest.mark.parametrize("seconds", [0, 0.2], ids=["while starting", "while waiting"])
def test_an_exception_raised_by_a_signal_handler_waits_for_the_work_too(seconds):
    worker, ended = Worker(), threading.Event()

    def handle(number, frame):
        raise Raised

    before = signal.signal(signal.SIGUSR1, handle)
    main = threading.main_thread().ident

    def interrupt():
        worker.began.wait()
        time.sleep(seconds)
        signal.pthread_kill(main, signal.SIGUSR1)
        # asyncio only logs what is raised inside of one of its own callbacks.
        while not ended.wait(5):
            signal.pthread_kill(main, signal.SIGUSR1)

    # What a handler raises inside of a finalizer is lost, and earlier tests leave many to run.
    gc.collect()
    gc.disable()
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(Raised):
            asyncio.run(in_thread(worker, never))
    finally:
        ended.set()
        gc.enable()
        signal.signal(signal.SIGUSR1, before)
    assert worker.saved
