"""A Prefect API for the length of a flow: the configured one, or a temporary server.

Prefect would start one by itself, but in our terminal's process group, where Ctrl-C ends it before
the flow can say that it was stopped; it would outlive a killed flow; and it would restart a server
whose database is locked without end. So it is started here: `python -m flows.server PORT PARENT`.
"""

import http.client
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from aligntune.errors import ConfigError, ServiceError
from aligntune.interrupt import stop_with

LOG = logging.getLogger("aligntune.flow")

ATTEMPTS = 3
PAUSE = 3.0
"""Seconds before the second attempt to start a server, and twice as many before the third."""
GRACE = 10.0
"""Seconds that a server may take to stop."""


@contextmanager
def available(meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """While the block runs, Prefect has an API to talk to. `meanwhile` is done while one starts.

    Raises:
        ServiceError: no temporary server could be started.
        ConfigError: none is configured and Prefect's settings forbid a temporary one.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_UI_URL,
        get_current_settings,
        temporary_settings,
    )

    settings = get_current_settings()
    if settings.api.url:
        yield
        return
    if not settings.server.ephemeral.enabled:
        raise ConfigError(
            "there is no Prefect server to use: set PREFECT_API_URL, or allow temporary servers "
            "with PREFECT_SERVER_EPHEMERAL_ENABLED=true"
        )
    LOG.info("starting a temporary Prefect server, because PREFECT_API_URL is not set ...")
    with tempfile.TemporaryDirectory(prefix="aligntune-prefect-") as folder:
        output = Path(folder) / "server.log"
        process, url = _started(
            settings.server.ephemeral.startup_timeout_seconds, output, meanwhile
        )
        try:
            with temporary_settings({PREFECT_API_URL: url, PREFECT_UI_URL: ""}):  # it has no UI
                yield
        finally:
            _end(process)


def _started(
    timeout: float, output: Path, meanwhile: Callable[[], object]
) -> tuple[subprocess.Popen[bytes], str]:
    """A server that answers, and the address of its API."""
    for attempt in range(1, ATTEMPTS + 1):
        port = _free_port()
        process = _start(port, output)
        try:
            meanwhile()
            trouble = _wait(process, port, timeout)
        except BaseException:
            _end(process)
            raise
        if trouble is None:
            return process, f"http://127.0.0.1:{port}/api"
        _end(process)
        trouble += _last_line(output)
        if attempt < ATTEMPTS:
            pause = PAUSE * attempt
            LOG.warning("the Prefect server %s; trying again in %.0f s", trouble, pause)
            time.sleep(pause)
    raise ServiceError(
        f"the temporary Prefect server {trouble}, in {ATTEMPTS} attempts; start one with `prefect "
        "server start` and set PREFECT_API_URL, or use `aligntune train`, which needs none"
    )


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _start(port: int, output: Path) -> subprocess.Popen[bytes]:
    from prefect.settings import get_current_settings

    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    with output.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(port), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | settings,
        )


def _wait(process: subprocess.Popen[bytes], port: int, timeout: float) -> str | None:
    """What kept the server from answering in time, or None."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        code = process.poll()
        if code is not None:
            return f"ended with code {code} instead of starting"
        if _healthy(port):
            return None
        time.sleep(0.1)
    return f"did not answer within {timeout:.0f} s"


def _healthy(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def _last_line(output: Path) -> str:
    lines = output.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return f" ({said[-1][:300]})" if said else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main(port: int, parent: int) -> None:
    """Serve until told to stop, or until the parent dies."""
    stop_with(parent)
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", lifespan="on")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
