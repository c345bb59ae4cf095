"""Two nodes, here as processes of one machine, train as one with two processes does."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rollouts import spec
from safetensors.torch import load_file
from tokens import write_split
from waits import until

from aligntune.errors import ConfigError, ResourceError
from aligntune.train.nodes import Nodes, announced, follow, lead
from aligntune.train.ranks import Job, together, write_job

SCRIPT = Path(__file__).with_name("train_job.py")
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"say {word}"}],
        "chosen": [{"role": "assistant", "content": f"{word} it is"}],
        "rejected": [{"role": "assistant", "content": f"no {word}"}],
    }
    for word in ("red", "blue", "sun", "moon", "tree", "sky", "cat", "dog")
]


NOTES = """
import os, pathlib, signal, sys, time
def note(number, _):
    with (folder / "got").open("a") as file:
        file.write(signal.Signals(number).name + " ")
    if number == signal.SIGHUP:
        raise SystemExit(75)
folder, parent = pathlib.Path(sys.argv[1]), os.getppid()
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, note)
(folder / "listens").touch()
while os.getppid() == parent:
    time.sleep(0.1)
"""


@pytest.fixture(autouse=True)
def signals():
    """As they were: what starts after these tests would ignore what they ignore."""
    every = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in every}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def train(tiny_model, tmp_path):
    """Starts a training of two processes; returns its directory and its command."""
    data = write_split(tmp_path / "data", ROWS, "preference", tiny_model)

    def train(name):
        out = tmp_path / name
        (out / "work").mkdir(parents=True)
        settings = {"max_steps": 3, "learning_rate": 1e-3, "per_device_batch_size": 4}
        wanted = spec("dpo", **settings).model_copy(update={"processes": 2})
        write_job(Job(wanted, tiny_model, data, out / "work", "k"), out / "job.json")
        return out, [sys.executable, str(SCRIPT), str(out / "job.json"), str(out)]

    return train


@pytest.fixture
def first(monkeypatch, tmp_path):
    """This process is on the first of two nodes; returns them, and a job for a process of each."""
    shared = tmp_path / "shared"
    shared.mkdir()
    found = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in found.items():
        monkeypatch.setenv(f"PET_{name}", value)
    monkeypatch.setenv("ALIGNTUNE_NODES", str(shared))
    (tmp_path / "work").mkdir()
    wanted = spec("dpo", rewards=()).model_copy(update={"processes": 2})
    return announced(), Job(wanted, tmp_path, tmp_path, tmp_path / "work", "k")


def node(rank, shared, command, port):
    meeting = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "PET_NODE_RANK": str(rank)}
    return subprocess.Popen(
        [sys.executable, "-m", "aligntune.train.nodes", str(shared), *command],
        env=os.environ | meeting | paths,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
def test_two_nodes_train_as_one_machine_with_two_processes_does(train, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one, command = train("one")
    subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=True)
    two, command = train("two")
    nodes = [node(rank, tmp_path / "shared", command, port) for rank in (1, 0)]
    said = [each.communicate(timeout=300)[0] for each in nodes]
    assert [each.returncode for each in nodes] == [0, 0], said
    expected, got = (load_file(out / "model" / "model.safetensors") for out in (one, two))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert not list((two / "work").glob("rank-*"))


def test_how_a_command_ends_is_how_all_nodes_end(tmp_path):
    code = lead(tmp_path / "shared", [sys.executable, "-c", "raise SystemExit(75)"])
    assert code == 75
    assert follow(Nodes(2, 1, shared=tmp_path / "shared")) == 75


def test_a_node_that_does_not_come_is_named_in_time(first, monkeypatch):
    _, job = first
    monkeypatch.setenv("ALIGNTUNE_MEETING_TIMEOUT", "0.1")
    said = r"node 1 has not started within 0\.1 s \(training processes 1 are missing\)"
    with pytest.raises(ResourceError, match=said), together(job):
        pytest.fail("it went to meet one that is not there")
    monkeypatch.setenv("ALIGNTUNE_MEETING_TIMEOUT", "soon")
    with pytest.raises(ConfigError, match="'soon' must be a number of seconds"), together(job):
        pytest.fail("it waits for as long as anyone likes")


@pytest.mark.timeout(60)
def test_a_process_that_dies_on_another_node_is_named_before_anyone_waits_for_it(
    first, tmp_path, monkeypatch
):
    machines, job = first
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nprint('no such library', flush=True)\nos._exit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    write_job(job, tmp_path / "job.json")
    machines.announce(tmp_path / "job.json")
    assert follow(Nodes(2, 1, shared=machines.shared)) == 3
    died = "training process 1 ended with code 3 and said 'no such library'"
    with pytest.raises(ResourceError, match=died), together(job):
        pytest.fail("it went to meet one that is gone")


@pytest.fixture
def heard():
    """What is started hears these signals, also where pytest itself ignores them: under nohup, or
    in the background of a script."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
def test_a_signal_reaches_the_command_once(tmp_path):
    command = [sys.executable, "-c", NOTES, str(tmp_path)]
    process = node(0, tmp_path / "shared", command, 1)
    got = tmp_path / "got"
    try:
        until((tmp_path / "listens").exists, "the command", 60)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        until(lambda: got.exists() and bool(got.read_text()), "the Ctrl-C", 60)
        process.send_signal(signal.SIGHUP)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, got.read_text()) == (75, "SIGINT SIGHUP "), said
    assert (tmp_path / "shared" / "ended").read_text() == "75"


def test_a_command_that_is_not_there_holds_up_no_node(tmp_path):
    with pytest.raises(ConfigError, match="aligntrain cannot be started: No such file"):
        lead(tmp_path / "shared", ["aligntrain"])
    assert follow(Nodes(2, 1, shared=tmp_path / "shared")) == 78


def test_a_directory_of_an_earlier_attempt_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="an earlier attempt had it"):
        lead(tmp_path, ["true"])


def test_processes_are_shared_out_evenly():
    assert Nodes(2).share(8) == 4
    with pytest.raises(ConfigError, match="make it a multiple of 2"):
        Nodes(2).share(1)


def test_without_the_variables_of_torchrun_it_says_which_to_set(monkeypatch, tmp_path):
    assert announced() == Nodes()
    monkeypatch.setenv("ALIGNTUNE_NODES", str(tmp_path))
    monkeypatch.delenv("PET_NNODES", raising=False)
    with pytest.raises(ConfigError, match="PET_NNODES"):
        announced()
