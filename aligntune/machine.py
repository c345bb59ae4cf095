"""What the machine does while stages run, measured with MLflow's own monitors.

MLflow's own thread ends at the first answer that a server does not give, and what it had measured
is lost; so here only the measuring is MLflow's, and the points wait in the outbox like all others.
"""

import json
import logging
import threading
from contextlib import suppress
from typing import Any

from mlflow.environment_variables import (
    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING,
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
)
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

from aligntune.journal import complete_lines, drop_torn_line
from aligntune.outbox import SYSTEM, Outbox, Record, now

LOG = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between samples; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says otherwise."""


class Sampler:
    """A thread that gives every running stage of one pipeline run a row of `system/...` now and
    then.

    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false turns it off.
    """

    def __init__(self, outbox: Outbox, parent: str) -> None:
        self._outbox = outbox
        self._parent = parent
        self._steps: dict[str, int] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="machine", daemon=True)
        wanted = MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
        if wanted.get() or not wanted.is_set():
            self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def _loop(self) -> None:
        monitors = _monitors()
        every = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or EVERY
        while not self._stopped.wait(every):
            try:
                measured = _measured(monitors)
                for record in self._outbox.records():
                    if record.parent == self._parent and record.status == "RUNNING":
                        self._append(record, measured)
            except Exception as error:  # noqa: BLE001  # a driver that fails costs the samples only
                LOG.warning("the machine is not measured any more: %s", error)
                return

    def _append(self, record: Record, measured: dict[str, float]) -> None:
        path = self._outbox.place(record.id) / SYSTEM
        if record.id not in self._steps:
            drop_torn_line(path)
            self._steps[record.id] = len(complete_lines(path))
        row = {"step": self._steps[record.id], "time": now(), "metrics": measured}
        # The stage may be over by now, and its record gone.
        with suppress(FileNotFoundError), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        self._steps[record.id] += 1


def _monitors() -> list[Any]:
    found = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for kind in (GPUMonitor, ROCMMonitor):
        try:
            found.append(kind())
        except Exception as error:  # noqa: BLE001  # they raise what their drivers raise
            LOG.debug("no %s: %s", kind.__name__, error)
    return found


def _measured(monitors: list[Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        found |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return found
