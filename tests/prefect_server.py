"""A Prefect server with all its services on loopback: schedules start runs, events do too."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from local import free_ports
from waits import until

START = 300.0
"""Seconds that a new database may take on a busy machine."""


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """The address of its API; its database is in `home`."""
    port = free_ports(1)
    url = f"http://127.0.0.1:{port}/api"
    own = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
        "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT5S",
    }
    environment = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "prefect", "server", "start"),
                *("--host", "127.0.0.1", "--port", str(port), "--no-ui"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment | own,
        )
    try:

        def started() -> bool:
            assert process.poll() is None, (home / "server.log").read_text()[-2000:]
            return answers(f"{url}/health")

        until(started, "the start of the Prefect server", START)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
