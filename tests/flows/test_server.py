"""The temporary Prefect server: it answers, it ends, and what goes wrong has a name."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
from waits import until

from aligntune.errors import ConfigError, ServiceError

from .conftest import processes


@pytest.fixture
def settings(environment):
    """Lays Prefect settings over those of the test, without a server."""
    from prefect import settings

    def laid(**values):
        named = {getattr(settings, name): value for name, value in values.items()}
        return settings.temporary_settings(named, restore_defaults=[settings.PREFECT_API_URL])

    return laid


def test_a_configured_server_is_used_and_none_started(settings):
    from flows.server import available

    with settings(PREFECT_API_URL="http://127.0.0.1:9/api"), available():
        assert servers(os.getpid()) == []


def test_without_a_server_and_without_leave_to_start_one_the_error_says_what_to_set(settings):
    from flows.server import available

    with (
        settings(PREFECT_SERVER_EPHEMERAL_ENABLED=False),
        pytest.raises(ConfigError, match="set PREFECT_API_URL"),
        available(),
    ):
        pass


@pytest.mark.slow
def test_a_server_that_cannot_start_is_tried_again_and_then_an_error_of_ours(
    settings, monkeypatch, caplog
):
    from flows import server

    monkeypatch.setattr(server, "PAUSE", 0.1)
    with (
        settings(PREFECT_SERVER_DATABASE_CONNECTION_URL="sqlite+aiosqlite:////nowhere/at/all.db"),
        pytest.raises(ServiceError, match=r"in 3 attempts; start one with `prefect server start`"),
        server.available(),
    ):
        pass
    assert caplog.text.count("trying again") == 2
    assert servers(os.getpid()) == []


@pytest.mark.slow
def test_a_locked_database_is_waited_for(settings, tmp_path):
    from flows import server

    database = tmp_path / "prefect.db"
    holder = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(15, holder.rollback).start()
    url = f"sqlite+aiosqlite:///{database}"
    with settings(PREFECT_SERVER_DATABASE_CONNECTION_URL=url), server.available():
        (process,) = servers(os.getpid())
    assert process not in servers(os.getpid())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_the_process_that_started_it(environment, tmp_path, number):
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "from flows.server import available\n"
        "with available():\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": ""},
        stderr=subprocess.DEVNULL,
    )
    until(lambda: servers(process.pid), "the server")
    process.send_signal(number)
    process.wait(30)
    until(lambda: not servers(process.pid), "the end of the server")


def servers(parent):
    """Processes of `flows.server` that were started for `parent`."""
    return processes("flows.server", parent)
