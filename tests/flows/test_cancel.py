"""Whoever starts a run and whoever ends it: no process is left, a checkpoint is there, and the next
run ends with the weights of one that was never disturbed, taking no step twice.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waits import until

from aligntune.digest import sha256
from aligntune.journal import read
from aligntune.processes import members

from .conftest import CONFIG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS = 80
SERVE = """
import sys
from flows.post_train import post_train
post_train.serve(name="served", parameters={"configs": [sys.argv[1]], "command": "served"})
"""
DEPLOY = """
import sys
from pathlib import Path
import flows
from flows.post_train import post_train
source = str(Path(flows.__file__).parents[1])
made = post_train.from_source(source, "flows/post_train.py:post_train")
made.deploy(name="worked", work_pool_name="here", parameters={"configs": [sys.argv[1]],
            "command": "worked"}, print_next_steps=False, ignore_warnings=True)
"""


@pytest.fixture(scope="module")
def server(environment, tmp_path_factory):
    """A server as a person starts it, whose background services cancel and schedule."""
    from flows.server import _free_port, _healthy

    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    log = tmp_path_factory.mktemp("server") / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    environment.setenv("PREFECT_API_URL", url)
    environment.setenv("PREFECT_WORKER_QUERY_SECONDS", "1")
    environment.setenv("PREFECT_RUNNER_POLL_FREQUENCY", "1")
    environment.setenv("PREFECT_WORKER_PREFETCH_SECONDS", "1")
    try:
        until(lambda: _healthy(port), "the server", 300)
        yield Client(url)
    finally:
        end(process)


PREFECT = [sys.executable, "-m", "prefect"]


class Client:
    """Prefect's API, as its page uses it."""

    def __init__(self, url):
        import httpx

        self._http = httpx.Client(base_url=url, timeout=60)

    def post(self, path, **body):
        answer = self._http.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def state(self, run):
        return self._http.get(f"/flow_runs/{run}").json()["state"]

    def deployments(self, name):
        found = self.post("/deployments/filter")
        return [deployment["id"] for deployment in found if deployment["name"] == name]

    def cancel(self, run):
        state = {"type": "CANCELLING", "name": "Cancelling"}
        return self.post(f"/flow_runs/{run}/set_state", state=state, force=False)

    def latest(self):
        return self.post("/flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]["id"]


def end(process):
    """End a process of ours and what it has started."""
    started = members(process.pid)
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in started:
        try:
            os.kill(left, signal.SIGKILL)
        except ProcessLookupError:
            continue


def begin(*command, cwd):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ.copy(), start_new_session=True,
    )  # fmt: skip


def write(model, folder):
    config, output = folder / "run.yaml", folder / "out"
    text = CONFIG.format(model=model, output=output, steps=STEPS)
    own = {"push_to_hub: true": "push_to_hub: false", "  hub_model_id: me/tiny\n": "",
           "save_steps: 2": "save_steps: 1000",
           # Slow enough that it goes on when the signal arrives.
           "1e-3": "1e-3, gradient_accumulation_steps: 16"}  # fmt: skip
    for old, new in own.items():
        text = text.replace(old, new)
    config.write_text(f"{text}launch: {{mode: process}}\n")
    return config, output


@pytest.fixture(scope="module")
def disturbed(tiny_model, tmp_path_factory):
    """The config and the output of the run that each test here goes on with, and ends."""
    return write(tiny_model, tmp_path_factory.mktemp("disturbed"))


def result(output):
    (made,) = [path for path in (output / "stages").glob("sft-*") if path.suffix != ".partial"]
    curve = [(row.step, row.metrics.get("train/loss")) for row in read(made / "metrics.jsonl")]
    return sha256(made / "model" / "model.safetensors"), [c for c in curve if c[1] is not None]


def training(output, process):
    """The trainer's process, once it has taken steps."""
    before = len(steps_of(output))
    until(lambda: len(steps_of(output)) >= before + 2, "two steps", 600, process)
    (log,) = output.glob("runs/*/logs/sft.txt")
    first = [line for line in log.read_text().splitlines() if line.startswith("--- ")][-1]
    return int(first.rpartition(" ")[2])


def steps_of(output):
    """The steps that an unfinished training has taken."""
    found = list((output / "stages").glob("sft-*.partial/metrics.jsonl"))
    return [row.step for row in read(found[0]) if "train/loss" in row.metrics] if found else []


def gone(trainer, output):
    """The training has ended, with all that it started, and has saved its last step."""
    until(lambda: not members(trainer), "the end of the trainer", 90)
    saved = (output / "stages").glob("sft-*.partial/work/checkpoints/step-*")
    steps = steps_of(output)
    assert max(int(path.name.partition("-")[2]) for path in saved) == steps[-1] < STEPS


@pytest.mark.parametrize("by", ["serve", "worker", "serve-killed"])
def test_a_deployments_run_is_cancelled(server, disturbed, tmp_path, by):
    config, output = disturbed
    if by == "worker":
        subprocess.run([*PREFECT, "work-pool", "create", "here", "--type", "process"], check=True)
        subprocess.run([sys.executable, "-c", DEPLOY, str(config)], check=True, cwd=tmp_path)
        starter = begin("-m", "prefect", "worker", "start", "--pool", "here", cwd=tmp_path)
    else:
        starter = begin("-c", SERVE, config, cwd=tmp_path)
    name = "worked" if by == "worker" else "served"
    try:
        until(lambda: server.deployments(name), "the deployment", 300)
        (deployment,) = server.deployments(name)
        run = server.post(f"/deployments/{deployment}/create_flow_run")["id"]
        trainer = training(output, starter)
        if by == "serve-killed":
            os.kill(next(parents(trainer)), signal.SIGKILL)  # as Prefect does after 30 s
        else:
            server.cancel(run)
        gone(trainer, output)
        final = "CRASHED" if by == "serve-killed" else "CANCELLED"
        until(lambda: server.state(run)["type"] == final, final)
    finally:
        end(starter)


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        (("flows.post_train",), signal.SIGINT, 75),
        (("flows.post_train",), signal.SIGKILL, -signal.SIGKILL),
        (("aligntune", "train"), signal.SIGINT, 75),
    ],
)
def test_a_command_is_ended(server, disturbed, tmp_path, command, number, code):
    config, output = disturbed
    run = begin("-m", *command, "--config", config, cwd=tmp_path)
    trainer = training(output, run)
    os.killpg(run.pid, number)  # as a terminal does
    said, _ = run.communicate(timeout=120)
    assert run.returncode == code, said
    gone(trainer, output)
    if command == ("flows.post_train",) and number == signal.SIGINT:
        state = server.state(server.latest())
        assert (state["type"], state["name"]) == ("CANCELLED", "Interrupted")


def test_processes_that_train_together_end_together(environment, tiny_model, tmp_path):
    config, output = write(tiny_model, tmp_path)
    two = ("-m", "aligntune", "train", "--config", config, "--set", "launch.processes=2")
    run = begin(*two, cwd=tmp_path)
    trainer = training(output, run)
    assert len(members(trainer)) >= 2
    run.terminate()
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 75, said
    gone(trainer, output)


def test_in_the_end_it_is_as_if_nothing_had_happened(disturbed, tiny_model, tmp_path):
    """No step was taken twice, either: the curve has each once, with the same loss."""
    config, output = disturbed
    whole = tmp_path / "whole"
    for where in (output, whole):
        run = begin("-m", "aligntune", "train", "--config", config, "--output-dir", where,
                    cwd=tmp_path)  # fmt: skip
        said, _ = run.communicate(timeout=900)
        assert run.returncode == 0, said
    assert result(output) == result(whole)
    assert "continuing from checkpoint" in (output / "runs/Tiny.run_1/logs/sft.txt").read_text()


def parents(process):
    """The parent of a process, its parent, and so on."""
    while process > 1:
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        process = int(stat[1])
        yield process
