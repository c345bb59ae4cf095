"""Someone who asks to stop is heeded at once, whatever is waited for."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from loopback_hub import LoopbackHub

from aligntune import aside, hub
from aligntune.aside import promptly
from aligntune.config.data import Dataset
from aligntune.data.sources import read
from aligntune.data.urls import fetch
from aligntune.errors import Interrupted
from aligntune.interrupt import stop_on_signals

MODEL = "me/tiny"
FILES = {"model.safetensors": b"weights" * 100, "config.json": b"{}", "tokenizer.json": b"{}"}


@pytest.fixture(autouse=True)
def not_here(monkeypatch):
    """What a test leaves behind does not end the process of the tests after it."""
    monkeypatch.setattr(aside, "_going", set())


@contextmanager
def terminated(when, limit=10.0):
    """SIGTERM to this process as soon as `when()` says so; the block must be left soon after."""
    told = []

    def watch():
        while not when():
            time.sleep(0.02)
        told.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=watch, daemon=True)
    with stop_on_signals():
        watcher.start()
        with pytest.raises(Interrupted, match=r"stopped while .*the same command") as stopped:
            yield
        assert time.monotonic() - told[0] < limit
    assert stopped.value.exit_code == 75


@pytest.fixture
def busy(hub_server, monkeypatch):
    """A hub that asks to come back after ten minutes, which is in the budget."""
    monkeypatch.setenv("ALIGNTUNE_HUB_BUDGET", "1200")
    hub_server.commit("model", MODEL, FILES)

    def after(path):
        hub_server.fail(429, path=path, headers={"Retry-After": "600"}, times=1000)
        return lambda: any(path in request.path for request in hub_server.requests)

    return after


def test_a_look_at_a_busy_hub(busy):
    with terminated(busy("/api/models")):
        hub.commit_of(MODEL, "model", None)


def test_a_download_from_a_busy_hub(busy, tmp_path):
    with terminated(busy("tokenizer.json")):
        hub.download_model(MODEL, None, tmp_path / "model")


def test_a_push_to_a_busy_hub(busy, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with terminated(busy("/repos/create")):
        hub.push(tmp_path, MODEL, private=False, message="Trained")


def test_one_who_asked_before_waits_for_nothing(hub_server):
    hub_server.commit("model", MODEL, FILES)
    with terminated(lambda: True):
        while True:
            hub.commit_of(MODEL, "model", None)


def test_what_is_in_the_middle_of_something_is_left_behind(monkeypatch, tmp_path):
    begun = threading.Event()
    with terminated(begun.is_set):
        promptly(lambda: (begun.set(), time.sleep(120)), "asleep")


def test_a_file_that_does_not_arrive(monkeypatch, tmp_path):
    """The server takes the connection, and says nothing."""
    import socket

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = threading.Event()
        threading.Thread(target=lambda: (silent.accept(), asked.set()), daemon=True).start()
        with terminated(asked.is_set):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/rows.jsonl")


def test_rows_of_a_function(monkeypatch, tmp_path):
    (tmp_path / "slow_rows.py").write_text(
        "import time\ndef rows():\n    while True:\n        time.sleep(0.01)\n        yield {}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with terminated(lambda: "slow_rows" in sys.modules):
        read(Dataset(name="slow_rows:rows"), "")


def test_an_error_of_what_is_done_comes_out_as_it_is():
    with pytest.raises(TimeoutError, match="its own"):
        promptly(lambda: (_ for _ in ()).throw(TimeoutError("its own")), "doing it")


def test_a_process_does_not_wait_for_what_it_left_behind():
    """An executor's threads, as an upload has them, are waited for at a usual exit."""
    code = (
        "import time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from aligntune.aside import leave, promptly\n"
        "from aligntune.errors import Interrupted\n"
        "from aligntune.interrupt import heeding\n"
        "began = time.monotonic()\n"
        "with heeding(lambda: time.monotonic() > began + 1):\n"
        "    try:\n"
        "        promptly(lambda: list(ThreadPoolExecutor(1).map(time.sleep, [300])), 'sending')\n"
        "    except Interrupted as error:\n"
        "        print(error)\n"
        "        leave(error.exit_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (
        75, "stopped while sending; the same command continues\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "revision", "place"),
    [
        pytest.param(signal.SIGTERM, f"'{'0' * 40}'", "model: ", marks=pytest.mark.slow),
        (signal.SIGINT, "main", ""),
    ],
    ids=["in a stage", "in its plan"],
)
def test_a_run_that_waits_for_the_hub_ends_as_resumable(number, revision, place, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        f"algo: sft\nmodel: {{name_or_path: {MODEL}, revision: {revision}}}\n"
        'datasets: [{name: "arithmetic:"}]\n'
        f"logging: {{output_dir: {tmp_path}/output, run_name: first}}\n"
    )
    with LoopbackHub() as server:
        server.fail(503, headers={"Retry-After": "500"}, times=1000)
        run = subprocess.Popen(
            [sys.executable, "-m", "aligntune", "train", "--config", str(config)],
            env={**os.environ, **server.env(tmp_path), "ALIGNTUNE_HUB_BUDGET": "600"},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            end = time.monotonic() + 120
            while not server.requests and run.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            run.send_signal(number)
            said = run.communicate(timeout=60)[1]
        finally:
            run.kill()
    assert run.returncode == 75, said
    assert f"ERROR 75 {place}stopped while the hub is asked for model 'me/tiny'" in said
