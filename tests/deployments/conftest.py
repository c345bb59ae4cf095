"""One Prefect server for all tests here, configs to deploy, and processes that serve them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from deployments.deployed import deployed, kill
from prefect_server import prefect_server

CONFIG = """
algo: sft
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
datasets: [{{name: "arithmetic:", params: {{count: 40, seed: 1}}}}]
train: {{per_device_batch_size: 2, max_steps: {steps}, learning_rate: 1e-3}}
evaluation:
  datasets: [{{name: "arithmetic:", split: test, params: {{count: 6, seed: 3}}}}]
  max_new_tokens: 4
  resamples: 100
registry: {{name: tiny}}
logging: {{output_dir: {output}, run_name: {name}}}
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The address of its API."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as url:
        yield url


@pytest.fixture(scope="module")
def environment(server, tmp_path_factory):
    """Variables of every process here: the server, and where a flow of tests is imported from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("PREFECT_API_URL", server)
        patch.setenv("OMP_NUM_THREADS", "1")
        here = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, here)))
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: server}):
            yield patch


@pytest.fixture
def written(environment, tiny_model, tmp_path):
    """Writes a config."""

    def write(name, text, steps=2):
        path = tmp_path / f"{name}.yaml"
        filled = CONFIG.format(model=tiny_model, steps=steps, output=tmp_path / "out", name=name)
        path.write_text(filled + text)
        return path

    return write


@pytest.fixture
def nap(environment, written):
    """Deploys a flow that takes its turn and sleeps for seconds; answers its id and its name."""
    import flows.deploy

    environment.setitem(flows.deploy.ENTRYPOINTS, "post-train", "napping.nap")
    environment.syspath_prepend(Path(__file__).parent)

    def deploy(name, seconds, text="", *overrides):
        path = written(name, "deployment: {flow: post-train}\n" + text, steps=seconds)
        (done,), _ = deployed(path, *overrides)
        return done

    yield deploy
    flows.deploy.ENTRYPOINTS["post-train"] = "flows.post_train.post_train"


@pytest.fixture
def served():
    """Serves a deployment in a process group of its own; answers the process."""
    going = []

    def serve(done):
        code = (
            "import sys; from uuid import UUID; from flows.deploy import Deployed\n"
            "from flows.serve import serve\n"
            "serve([Deployed(UUID(sys.argv[1]), sys.argv[2], [], None)])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(done.id), done.name], start_new_session=True
        )
        going.append(process)
        return process

    yield serve
    for process in going:
        kill(process)
