"""Two nodes, here as processes of one machine, train as one with two processes does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rollouts import spec
from safetensors.torch import load_file
from tokens import write_split

from aligntune.errors import ConfigError
from aligntune.train.nodes import Nodes, announced, follow, lead
from aligntune.train.ranks import Job, write_job

SCRIPT = Path(__file__).with_name("train_job.py")
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"say {word}"}],
        "chosen": [{"role": "assistant", "content": f"{word} it is"}],
        "rejected": [{"role": "assistant", "content": f"no {word}"}],
    }
    for word in ("red", "blue", "sun", "moon", "tree", "sky", "cat", "dog")
]


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


def node(rank, shared, command, port):
    meeting = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "PET_NODE_RANK": str(rank)}
    return subprocess.Popen(
        [sys.executable, "-m", "aligntune.train.nodes", str(shared), *command],
        env=os.environ | meeting | paths,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
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
