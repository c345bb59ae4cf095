"""Who empties the outbox: a thread beside a run, and `aligntune sync` afterwards."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, repeat
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient

from aligntune.deliver import Delivery, lasting
from aligntune.errors import Interrupted, ServiceError
from aligntune.machine import Sampler
from aligntune.outbox import Outbox
from aligntune.store import one_line
from aligntune.track import connect, experiment

LOG = logging.getLogger(__name__)
T = TypeVar("T")

LAST_WAIT = 30.0
"""Seconds that the end of a run may wait for MLflow."""
SHORT_WAIT = 10.0
"""The same, where the run failed, was asked to stop, or MLflow is away by then."""
PATIENCE = 45.0
"""Seconds after which what cannot do without MLflow makes its last attempt."""
_EVERY = 5.0
"""Seconds between looks at growing journals."""
_SHARE = 100
"""A round that took a second of CPU is followed by so many seconds of rest, but no more than"""
_REST = 60.0
_AGAIN = (1.0, 2.0, 5.0)
"""Seconds before each new attempt while MLflow is away; the last one repeats."""
_LOOK = 0.1
"""Seconds between looks for new records."""


class Courier:
    """Delivers what waits below one output directory for one store."""

    def __init__(self, uri: str, root: Path, store: str) -> None:
        self._uri = uri
        self._store = store
        self.outbox = Outbox(root)
        self._delivery: Delivery | None = None

    def round(self, patience: float = 0.0) -> int:
        """Deliver everything there is, and say how many runs are not complete yet.

        One process delivers at a time; `patience` is how many seconds to wait for another one.

        Raises:
            ServiceError: MLflow is away.
        """
        from filelock import FileLock, Timeout

        outbox = self.outbox
        outbox.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(outbox.folder / ".lock", timeout=patience):
                outbox.close_the_dead()
                self._deliver()
        except Timeout:  # its records and ours are in the same hands
            if patience:
                raise ServiceError("another process is busy with MLflow; try again") from None
        return len(outbox.waiting(self._store))

    @property
    def unfinished(self) -> int:
        """How many runs have ended and wait."""
        return sum(record.status != "RUNNING" for record in self.outbox.waiting(self._store))

    def _deliver(self) -> None:
        waiting = self.outbox.waiting(self._store)
        if not waiting:
            return
        try:
            delivery = self._connected()
            for record in waiting:
                delivery.going(record)
            for record in waiting:
                delivery.samples(record)
            # Files go last, as where they are kept may be away alone; a pipeline ends after its
            # stages.
            ended = [record for record in waiting if record.status != "RUNNING"]
            for record in sorted(ended, key=lambda record: record.role != "stage"):
                delivery.ended(record)
        except Exception as error:  # S3, SQL and HTTP clients raise their own
            LOG.debug("what MLflow's client said", exc_info=True)
            self._delivery = None
            self.outbox.away.touch()
            does = "refuses" if lasting(error) else "does not answer"
            said = error if isinstance(error, ServiceError) else f"MLflow {does}: {one_line(error)}"
            raise ServiceError(
                f"{said}; what it missed is kept, `aligntune sync` sends it"
            ) from error
        self.outbox.away.unlink(missing_ok=True)

    def _connected(self) -> Delivery:
        if self._delivery is None:
            client: MlflowClient = connect(self._uri, self.outbox.root)
            where = partial(experiment, client, self._uri, self.outbox.root)
            self._delivery = Delivery(self.outbox, client, cache(where))
        return self._delivery


class _Beside:
    """A courier in a thread of its own."""

    def __init__(self, courier: Courier) -> None:
        self._courier = courier
        self._ending = threading.Event()
        self._end = 0.0
        self._failures = 0
        self._thread = threading.Thread(target=self._loop, name="mlflow-courier", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while True:
            ending, before = self._ending.is_set(), self._seen()
            began = time.thread_time()
            there = self._round()
            # Another run that goes on in the same directory has its own courier.
            done = there and not self._courier.unfinished
            if ending and (done or time.monotonic() > self._end):
                return
            if not there:
                self._ending_or(_AGAIN[min(self._failures, len(_AGAIN)) - 1])
            else:
                rest = min(_REST, _SHARE * (time.thread_time() - began))
                self._rest(max(_EVERY, rest), before)

    def _round(self) -> bool:
        """Whether MLflow is there."""
        try:
            self._courier.round()
        except OSError as error:  # a ServiceError, or a disk that is full
            if not self._failures:
                LOG.warning("%s", error)
            self._failures += 1
            return False
        if self._failures:
            LOG.warning("MLflow is back; what was kept is sent")
        self._failures = 0
        return True

    def _seen(self) -> int:
        changed = self._courier.outbox.changed
        return changed.stat().st_mtime_ns if changed.exists() else 0

    def _rest(self, seconds: float, before: int) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._ending_or(_LOOK):
            if self._seen() != before:
                return

    def _ending_or(self, seconds: float) -> bool:
        """Sleep, but when the end has come only for a moment."""
        if self._ending.is_set():
            time.sleep(min(seconds, 1.0))
            return True
        return self._ending.wait(seconds)

    def finish(self, seconds: float) -> None:
        """Give the rest so many seconds."""
        self._end = time.monotonic() + seconds
        self._ending.set()
        self._thread.join(seconds)


@contextmanager
def delivering(uri: str, root: Path, store: str, record: str) -> Iterator[None]:
    """Empties the outbox below `root` while the block, the pipeline run of that record, goes on,
    and for a limited time at its end."""
    courier = Courier(uri, root, store)
    courier.outbox.folder.mkdir(parents=True, exist_ok=True)
    courier.outbox.away.unlink(missing_ok=True)
    beside, sampler = _Beside(courier), Sampler(courier.outbox, record)
    wait = SHORT_WAIT
    try:
        yield
        wait = LAST_WAIT
    finally:
        sampler.stop()
        beside.finish(SHORT_WAIT if courier.outbox.away.exists() else wait)
        with suppress(OSError):
            courier.outbox.tidy()
        if left := courier.unfinished + len(courier.outbox.refused(store)):
            LOG.warning(
                "MLflow does not have everything of %d runs; `aligntune sync --output-dir %s` "
                "sends the rest, or says why it cannot", left, root,
            )  # fmt: skip


@dataclass(frozen=True)
class Synced:
    store: str
    sent: int
    """Runs that MLflow has got whole."""
    going: int
    """Runs that another process is still at."""
    elsewhere: dict[str, int]
    """Other stores that runs wait for."""
    refused: list[str]
    """What has not arrived though MLflow is there, and why."""


def sync(uri: str, root: Path, store: str) -> Synced:
    """Deliver everything that waits below `root` for the store at `uri`, and what was refused.

    Raises:
        ServiceError: MLflow is away; what has arrived is not sent again.
    """
    courier = Courier(uri, root, store)
    outbox = courier.outbox
    if not outbox.folder.is_dir():  # it may have been removed since the run
        return Synced(store, 0, 0, {}, [])
    for record in outbox.refused(store):
        outbox.remember(record.id, outbox.sent(record.id).anew)
    before = len(outbox.waiting(store))
    left = _patiently(lambda: courier.round(LAST_WAIT), lambda: False)
    others = Counter(record.store for record in outbox.records() if record.store != store)
    elsewhere = {name: len(outbox.waiting(name)) for name in sorted(others)}
    outbox.tidy()
    refused = [
        f"the {what} of {record.name} ({why}), which {outbox.place(record.id)} keeps"
        for record in outbox.refused(store)
        for what, why in outbox.sent(record.id).refused.items()
    ]
    sent = before - left - len(outbox.refused(store))
    return Synced(store, sent, left, {name: n for name, n in elsewhere.items() if n}, refused)


def when_there(
    attempt: Callable[[], T], uri: str, root: Path, store: str, stopping: Callable[[], bool]
) -> T:
    """What `attempt`, which needs MLflow, returns; the runs of the outbox are there before it.

    Raises:
        ServiceError: MLflow stayed away.
        Interrupted: asked to stop meanwhile.
    """

    def once() -> T:
        Courier(uri, root, store).round(LAST_WAIT)
        return attempt()

    return _patiently(once, stopping)


def _patiently(attempt: Callable[[], T], stopping: Callable[[], bool]) -> T:
    """`attempt`, again and again for a while where a service is away."""
    end = time.monotonic() + PATIENCE
    for delay in chain(_AGAIN, repeat(_AGAIN[-1])):
        try:
            return attempt()
        except ServiceError as error:
            if time.monotonic() + delay > end:
                raise
            LOG.warning("%s; trying again in %g s", error, delay)
        _sleep(delay, stopping)
    raise AssertionError("endless")


def _sleep(seconds: float, stopping: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if stopping():
            raise Interrupted("stopped while MLflow is away; the same command continues")
        time.sleep(_LOOK)
