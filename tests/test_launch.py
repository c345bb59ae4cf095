"""A stage in a process of its own: watched, logged, ended in time, and nothing of it left."""

import logging
import os
import signal
import time
from pathlib import Path

import pytest

from aligntune import launch
from aligntune.config.load import load
from aligntune.errors import AlignTuneError, Interrupted
from aligntune.launch import execute_in_child
from aligntune.plan import plan
from aligntune.processes import members
from aligntune.run import Context, execute
from aligntune.supervise import UNLIMITED, Limits

MODULE = """
import ctypes, os, subprocess, sys, time

def fine(**_):
    return [{"prompt": f"say {n}", "completion": f"it is {n}"} for n in range(40)]

def short(**_):
    return fine()[:20]

def hangs(**_):
    print("left", subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
    print("half a bar\\rwhole bar", flush=True)
    def deep_inside():
        time.sleep(600)
    deep_inside()

def daemon(**_):
    code = "import time; time.sleep(300)"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    print("its own", child.pid, flush=True)
    return fine()

def leaves(**_):
    print("told nobody", flush=True)
    ctypes.CDLL(None)._exit(0)  # as a library written in C could

def dies(**_): os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def child(tiny_model, tmp_path_factory):
    """Runs a data stage whose rows come from one of MODULE's functions in a child."""
    folder = tmp_path_factory.mktemp("launch")
    (folder / "watched_rows.py").write_text(MODULE)

    def run(name, stopping=lambda: False, limits=UNLIMITED, progress=None):
        settings = (
            f"algo: sft\nmodel: {{name_or_path: {tiny_model}}}\n"
            f'datasets: [{{name: "watched_rows:{name}"}}]\n'
            f"logging: {{output_dir: {folder}/out, run_name: {name}}}\n"
        )
        config = folder / f"{name}.yaml"
        config.write_text(settings)
        made = plan(load([config]), only="data")
        context = Context(str(made.paths.root), "", name, None)
        for entry in made.stages:
            if entry.stage.kind != "data":
                execute(entry.stage, context, lambda *_: None, lambda: False)
        (stage,) = [entry.stage for entry in made.stages if entry.stage.kind == "data"]
        log = context.log(stage.label)
        return log, lambda: execute_in_child(
            stage, context, said.append, stopping, limits=limits, progress=progress
        )

    said = []
    ours = logging.getLogger("aligntune")
    before = ours.level
    ours.setLevel("INFO")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        yield run
    ours.setLevel(before)


def left(log):
    """Whether the process that a stage started is still there after a moment."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("left ")]
    if not lines:  # a slow machine: it had not come so far
        return False
    command, end = Path("/proc", lines[-1].split()[1], "cmdline"), time.monotonic() + 10
    while time.monotonic() < end:
        if not command.exists() or not command.read_bytes():  # gone, or nobody asked for its code
            return False
        time.sleep(0.05)
    return True


def test_what_it_says_is_in_the_runs_folder_and_comes_along(child):
    seen = []
    log, run = child("fine", progress=lambda *standing: seen.append(standing))
    assert run().label == "data"
    assert log.parts[-4:] == ("runs", "fine", "logs", "data.txt")
    assert "data ..." in log.read_text()
    assert run().reused


def test_a_number_that_may_be_anothers_by_now_gets_no_signal(child, monkeypatch):
    class Kept(launch.Child):
        def stop(self):
            signalled.clear()
            super().stop()

    signalled = []
    monkeypatch.setattr(launch, "end_session", signalled.append)
    monkeypatch.setattr(launch, "Child", Kept)
    monkeypatch.setattr(launch, "_watch", lambda *_: None)
    _, run = child("short")
    assert not run().reused
    assert signalled == []


def test_a_hang_is_found_its_stacks_are_logged_and_nothing_of_it_is_left(child, monkeypatch):
    monkeypatch.setattr(launch, "HUNG_GRACE", 1.0)
    log, run = child("hangs", limits=Limits(silence=10.0))
    with pytest.raises(Interrupted, match=r"^data: no sign of life for \d+ s \(launch.hang_tim"):
        run()
    assert "in deep_inside" in log.read_text()
    assert "whole bar" in log.read_text()
    assert "half a bar" not in log.read_text()
    assert not left(log)


def test_its_time_is_over(child, monkeypatch):
    monkeypatch.setattr(launch, "GRACE", 1.0)
    log, run = child("hangs", limits=Limits(timeout=12.0))
    with pytest.raises(Interrupted, match=r"^data: its time is over \(launch.timeout: 12 s\)"):
        run()
    assert not left(log)


def test_a_stop_that_comes_before_it_starts_starts_nothing(child):
    log, run = child("hangs", stopping=lambda: True)
    log.unlink(missing_ok=True)
    with pytest.raises(Interrupted, match="data: stopped before it began"):
        run()
    assert not log.exists()


def test_an_exit_with_code_0_is_no_success(child):
    log, run = child("leaves")
    with pytest.raises(AlignTuneError, match=r"code 0 and no artifact, as if .* 'told nobody'"):
        run()
    assert "told nobody" in log.read_text()


def test_a_process_that_lives_on_keeps_no_stage_from_its_end(child):
    log, run = child("daemon")
    before = time.monotonic()
    try:
        assert run().label == "data"
        assert time.monotonic() - before < 200
    finally:
        (line,) = [line for line in log.read_text().splitlines() if line.startswith("its own ")]
        os.kill(int(line.split()[-1]), signal.SIGKILL)
    assert "data ..." in log.read_text()


def test_a_kill_from_outside_is_resumable(child):
    _, run = child("dies")
    with pytest.raises(Interrupted, match="killed by SIGKILL"):
        run()


def test_members_of_a_session():
    assert os.getpid() in members(os.getsid(0))
    assert members(2**22 + 1) == []
