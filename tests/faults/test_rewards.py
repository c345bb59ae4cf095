"""Rewards from which nothing can be learned, in a whole training: none ends as a success, and
nothing that they started is left."""

import os
import signal
import time
from pathlib import Path

import pytest
from faults.bench import BASE, ROWS, Ended, Server

from aligntune.config.load import load
from aligntune.plan import plan
from aligntune.run import Context

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MODULE = """
import os, signal, subprocess, sys, time
from itertools import count
number = count()
def each(what): return lambda samples: [what(sample) for sample in samples]
none = each(lambda s: None)
nan = each(lambda s: float("nan"))
infinite = each(lambda s: float("inf"))
huge = each(lambda s: 1e38 * (-1) ** next(number))
constant = each(lambda s: 0.5)
text = each(lambda s: "high")
nested = each(lambda s: [0.5])
truth = each(lambda s: {"score": 1.0})
raises = each(lambda s: 1 / 0)
interrupts = each(lambda s: (_ for _ in ()).throw(KeyboardInterrupt))
exits = each(lambda s: sys.exit(0))
leaves = each(lambda s: os._exit(0))
dies = each(lambda s: os.kill(os.getpid(), signal.SIGSEGV))
hangs = each(lambda s: time.sleep(1000))
def spins(samples):
    while True: pass
def short(samples): return [0.5]
def nothing(samples): return None
def mutates(samples):
    for sample in samples: sample.columns["answer"] = "mine"
    return [0.5 for _ in samples]
def starts(samples):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    os._exit(0)
def starts_later(samples):
    if len(samples) > 2:  # which is more than a trial
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        os.kill(os.getppid(), signal.SIGKILL)
    return [float(len(sample.completion)) for sample in samples]
"""
KINDS = (
    "none", "nan", "infinite", "huge", "constant", "text", "nested", "truth", "raises",
    "interrupts", "exits", "leaves", "dies", "hangs", "spins", "short", "nothing", "mutates",
)  # fmt: skip
CONFIG = (
    "algo: grpo\n"
    + ROWS
    + (
        'rewards: [{reward_type: "bad_rewards:KIND", on_error: POLICY, timeout: 1}]\n'
        "train: {per_device_batch_size: 8, num_generations: 4, max_completion_length: 6,"
        " max_steps: 4, learning_rate: 1e-3, guard: {patience: 2}}\n"
    )
)
CONFIG_WRONG, RESUMABLE, DIVERGED = 78, 75, 79
EXPECTED = {"dies": (-signal.SIGSEGV,), "interrupts": (RESUMABLE,)}
SOME = ("nan", "hangs", "dies", "exits", "huge")
"""Kinds that stand for all where few points are played, with what is left out and replaced."""
MANY = int(os.environ.get("FAULT_POINTS", "2")) > 9


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "bad_rewards.py").write_text(MODULE)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch, Server(folder, PYTHONPATH=path) as server:
        patch.syspath_prepend(folder)
        yield server


@pytest.fixture
def config(server, tiny_model):
    """Writes a config with the reward and what is done where it fails."""
    text = CONFIG + BASE.replace("MODEL", str(tiny_model))

    def write(kind: str, policy: str) -> Path:
        path = server.folder / "run.yaml"
        said = text.replace("OUTPUT", str(server.folder / "out"))
        path.write_text(said.replace("KIND", kind).replace("POLICY", policy))
        return path

    return write


def trained(server: Server, config: Path) -> Ended:
    """How the training of the config ended."""
    planned = plan(load([config], []))
    context = Context(str(planned.paths.root), "", "tiny", None)
    for entry in planned.stages:
        ended = server.run(entry.stage, context)
        if entry.stage.label == "grpo":
            return ended
        assert ended.code == 0, ended
    raise AssertionError("nothing was trained")


@pytest.mark.parametrize("policy", ["stop", "skip", "value"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_that_teaches_nothing_is_no_success(server, config, kind, policy):
    if not MANY and policy != "stop" and kind not in SOME:
        pytest.skip("`make faults` plays it")
    ended = trained(server, config(kind, policy))
    assert ended.code in EXPECTED.get(kind, (CONFIG_WRONG, DIVERGED)), ended
    assert ended.seconds < 60
    assert not server.left()


def test_what_a_reward_has_started_ends_with_the_run(server, config):
    root, path = server.folder / "out", config("starts", "stop")
    ended = server.command(["train", "--config", str(path)], server.folder / "said.txt", root)
    assert ended.code == CONFIG_WRONG, (server.folder / "said.txt").read_text()
    assert not server.left()


def test_what_a_reward_has_started_ends_with_a_run_that_is_killed(server, config):
    root, path = server.folder / "out", config("starts_later", "stop")
    log = server.folder / "killed.txt"
    ended = server.command(["train", "--config", str(path)], log, root)
    assert ended.code == -signal.SIGKILL, log.read_text()
    end = time.monotonic() + 120
    while (left := server.left()) and time.monotonic() < end:  # it saves first
        time.sleep(0.1)
    assert not left
