"""A function of the user's own is tried in a process of its own, of which nothing is left."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError
from aligntune.rewards.apart import check_apart

MODULE = """
import os, re, signal, subprocess, sys, time
from pathlib import Path
HERE = Path(__file__).parent
def start(**how):
    code = "import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], **how)
    (HERE / "started.new").write_text(str(child.pid))
    (HERE / "started.new").replace(HERE / "started")
def exits(samples):
    start()
    os._exit(0)
def own_group(samples):
    start(process_group=0)
    return [0.5 for _ in samples]
def crashes(samples):
    start()
    os.kill(os.getpid(), signal.SIGSEGV)
def hangs(samples):
    start()
    time.sleep(600)
def interrupts(samples): raise KeyboardInterrupt
def fine(samples):
    print("not a result")
    with (HERE / "calls").open("a") as file: file.write(".")
    return [0.5 for _ in samples]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "started_rewards.py").write_text(MODULE)
    (tmp_path / "leaving_rewards.py").write_text("import os\nos._exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def tried(name, **settings):
    check_apart(Reward(reward_type=f"started_rewards:{name}", **settings))


def gone(folder: Path) -> bool:
    """Whether the process that a function started has ended, or does so soon."""
    command = Path("/proc", (folder / "started").read_text(), "cmdline")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not command.exists() or not command.read_bytes():  # or nobody asked for its code
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exits", r"failed: SystemExit: os._exit\(0\)"),
        ("crashes", r"ended the process that it was tried in \(killed by SIGSEGV\)"),
        ("hangs", "no scores after 1 s"),
        ("own_group", None),
    ],
)
def test_what_it_has_started_ends_with_the_trial(own, name, words):
    if words:
        with pytest.raises(ConfigError, match=words):
            tried(name, timeout=1)
    else:
        tried(name)
    assert gone(own)


def test_what_it_has_started_ends_with_a_command_that_is_killed(own):
    code = f"import sys; sys.path.insert(0, {str(own)!r})\n" + (
        "from aligntune.config.rewards import Reward\n"
        "from aligntune.rewards.apart import check_apart\n"
        "check_apart(Reward(reward_type='started_rewards:hangs'))\n"
    )
    command = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 60
    while not (own / "started").exists() and time.monotonic() < end:
        time.sleep(0.05)
    command.send_signal(signal.SIGKILL)
    command.wait()
    assert gone(own)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("leaving_rewards:any", r"tried in \(exit code 0\)"),
        ("started_rewards:interrupts", "raised KeyboardInterrupt"),
        ("started_rewards:absent", "cannot be imported"),
    ],
)
def test_what_ends_it_is_a_mistake_in_the_config(own, path, words):
    with pytest.raises(ConfigError, match=words):
        check_apart(Reward(reward_type=path, on_error="skip"))


def test_a_module_that_never_ends_to_be_imported_ends_the_trial(own):
    (own / "endless_rewards.py").write_text("import time\ntime.sleep(600)\n")
    code = (
        f"import sys; sys.path.insert(0, {str(own)!r})\n"
        "from aligntune.config.rewards import Reward\n"
        "from aligntune.rewards import apart\n"
        "apart.IMPORT = 0.5\n"
        "apart._problem(Reward(reward_type='endless_rewards:f'))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == -signal.SIGALRM


def test_it_is_tried_once_and_prints_no_result(own, capfd):
    tried("fine")
    tried("fine")
    assert (own / "calls").read_text() == "."
    tried("fine", timeout=9)
    assert (own / "calls").read_text() == ".."
    assert capfd.readouterr().out == ""
    assert "started_rewards" not in sys.modules
