"""A hub that breaks in every way at random places: right bytes, or an error that says so, in time.

FAULT_POINTS and FAULT_SEED play more rounds, or the same ones again; `make faults` plays 240.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from loopback_hub import LoopbackHub
from proxy import Proxy

from aligntune import hub
from aligntune.errors import DataError, ServiceError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

POINTS = int(os.environ.get("FAULT_POINTS", "1"))
SEED = int(os.environ.get("FAULT_SEED", str(random.SystemRandom().randrange(10**6))))
LARGE = POINTS >= 200
BUDGET = 3.0
"""Seconds that each operation may try."""
SLACK = 30.0
"""Seconds beyond the budgets of all operations of a download, on a busy machine."""
MODEL = "me/tiny"
FILES = {
    "model.safetensors": random.Random(1).randbytes(300_000),
    "config.json": b'{"model_type": "llama"}' + b" " * 5_000,
    "tokenizer.json": b"{}" * 20_000,
}
PLACES = ("/api/models", r"config\.json", r"model\.safetensors", r"tokenizer\.json")
SERVED = {
    "429": 429, "500": 500, "503": 503, "cut": "cut", "short": "short", "tamper": "tamper",
    "etag": "etag", "redirect": "redirect", "lost": "lost", "stall": "stall",
}  # fmt: skip
"""What the hub itself does wrong; `refuse`, `slow` and a cut at any byte are the line's."""
OF_BODIES = ("short", "tamper")
"""The rest also goes wrong where only the head is asked for."""
MODES = (*SERVED, "refuse", "slow", "cut anywhere")
PUSHES = 40 if LARGE else 4
CALLS = 8
"""Requests of a push, at the least."""


@pytest.fixture
def rng(request):
    print(f"FAULT_SEED={SEED}")  # noqa: T201  # shown if the test fails
    return random.Random(f"{SEED} {request.node.name}")


def spoil(mode, server, line, rng):
    """Break something, for a while or for as long as the trial takes."""
    times = rng.choice((1, 2, 1000))
    if mode in SERVED:
        method = "GET" if mode in OF_BODIES else None
        server.fail(SERVED[mode], path=rng.choice(PLACES), method=method, times=times)
    elif mode == "slow":
        line.rate = rng.choice((400_000, 40_000))
        line.set("slow")
    elif mode == "refuse":
        line.set("refuse")
    else:
        line.cut_after(rng.randrange(1, 330_000), times)


def test_a_download_is_right_or_fails_in_time(rng, tmp_path, monkeypatch):
    ends = Counter()
    for number in range(20 if LARGE else 1):
        for mode in MODES:
            place = tmp_path / f"{mode} {number}"
            with pytest.MonkeyPatch.context() as patch:
                ends[mode, download(mode, rng, place, patch)] += 1
    print()  # noqa: T201
    for (mode, end), count in sorted(ends.items()):
        print(f"{mode}: {end} {count}")  # noqa: T201
    assert {end for _, end in ends} <= {"right", "exit 65", "exit 69"}


def download(mode, rng, place, patch):
    with LoopbackHub() as server, Proxy(server.port) as line:
        server.commit("model", MODEL, FILES)
        server.front = line.url
        server.connect(patch, place)
        patch.setenv("ALIGNTUNE_HUB_BUDGET", str(BUDGET))
        spoil(mode, server, line, rng)
        began = time.monotonic()
        try:
            into = hub.download_model(MODEL, None, place / "model")
        except (DataError, ServiceError) as error:
            took = time.monotonic() - began
            assert took < (len(FILES) + 2) * BUDGET + SLACK, f"{mode} took {took:.1f} s"
            # The next attempt, with a hub that is well, heals whatever is left in the cache.
            server.heal()
            line.heal()
            into = hub.download_model(MODEL, None, place / "model")
            end = f"exit {error.exit_code}"
        else:
            end = "right"
        got = {path.name: path.read_bytes() for path in into.iterdir()}
        assert got == FILES, f"{mode}: wrong bytes after {end}"
        return end


PUSHING = """
import sys
from pathlib import Path
from aligntune import hub
hub.push(Path(sys.argv[1]), "me/tiny", private=False, message="Train")
"""


def test_a_killed_push_leaves_the_old_model_or_the_new_one(rng, tmp_path):
    ends = Counter()
    new = {name: content[::-1] for name, content in FILES.items()}
    folder = tmp_path / "new"
    folder.mkdir()
    for name, content in new.items():
        (folder / name).write_bytes(content)
    for number in range(PUSHES):
        with LoopbackHub() as server, Proxy(server.port) as line:
            server.commit("model", MODEL, FILES)
            server.front = line.url
            line.doom(rng.randrange(1, CALLS), rng.choice(("request", "answer")), hold=True)
            killed = push(folder, server.env(tmp_path / str(number)), line.held)
            assert killed == -signal.SIGKILL
            left = model(server)
            assert left in (FILES, new), f"push {number}: {Counter(left)}"
            ends["new" if left == new else "old"] += 1
            line.heal()
            with pytest.MonkeyPatch.context() as patch:
                server.connect(patch, tmp_path / str(number))
                hub.push(folder, MODEL, private=False, message="Train")
            assert model(server) == new
            assert len(server.commits(MODEL)) == 2, "one commit, however often it was tried"
    print(dict(ends))  # noqa: T201


def model(server):
    found = server.files("model", MODEL)
    found.pop(".gitattributes", None)
    return found


def push(folder, env, held):
    """The exit code of a push in a process of its own, killed when the line is held."""
    process = subprocess.Popen(
        [sys.executable, "-c", PUSHING, str(folder)],
        stdin=subprocess.DEVNULL, env=os.environ | env,
    )  # fmt: skip
    while process.poll() is None:
        if held.wait(0.05):
            process.kill()
            break
    return process.wait(120)
