"""One Prefect server for all tests here, and one pipeline run: interrupted, then finished."""

import asyncio
import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub
from own_process import started
from waits import wait_for_checkpoint

CONFIG = """
algo: sft
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
datasets: [{{name: "arithmetic:", params: {{count: 400, seed: 1}}}}]
train: {{per_device_batch_size: 2, max_steps: {steps}, learning_rate: 1e-3}}
evaluation:
  datasets: [{{name: "arithmetic:", split: test, params: {{count: 6, seed: 3}}}}]
  max_new_tokens: 4
  resamples: 100
registry: {{name: tiny}}
logging:
  output_dir: {output}
  run_name: Tiny.run_1
  save_steps: 2
  push_to_hub: true
  hub_model_id: me/tiny
"""
STAGES = (
    "model", "tokenizer", "eval-data", "data", "sft", "evaluate-base", "evaluate-sft", "register",
    "decide", "promote", "push",
)  # fmt: skip
BEFORE_SFT = ("model", "tokenizer", "eval-data", "data")
SECRET = "s3cr3t-token"
"""What no log may say."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables of every process here, set before Prefect is imported in this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield patch


@pytest.fixture(scope="module")
def prefect(environment):
    """Starts the server; answers what it knows."""
    from prefect.settings import PREFECT_API_URL

    import flows.server

    with flows.server.available():
        environment.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
        yield Prefect()


class Prefect:
    """What Prefect's API says about flow runs."""

    def latest(self):
        return self._ask(lambda client: client.read_flow_runs(sort="START_TIME_DESC", limit=1))[0]

    def tasks(self, flow_run):
        """Task runs of a flow run by the first word of their names."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        only = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
        found = self._ask(lambda client: client.read_task_runs(flow_run_filter=only))
        return {task.name.split()[0]: task for task in found}

    def logs(self, task):
        from prefect.client.schemas.filters import LogFilter, LogFilterTaskRunId

        only = LogFilter(task_run_id=LogFilterTaskRunId(any_=[task.id]))
        return [log.message for log in self._ask(lambda client: client.read_logs(only, limit=200))]

    def artifacts(self):
        """Of all flow runs, newest first."""
        return self._ask(lambda client: client.read_artifacts(sort="CREATED_DESC", limit=200))

    def _ask(self, question):
        from prefect import get_client

        async def answer():
            async with get_client() as client:
                return await question(client)

        return asyncio.run(answer())


@pytest.fixture(scope="module")
def hub(environment, tmp_path_factory):
    """An empty hub on loopback that is asked by this process and its children."""
    with LoopbackHub() as hub:
        hub.connect(environment, tmp_path_factory.mktemp("hub"))
        yield hub


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted to it; answers with `status`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.got, self.status = [], 200

    @property
    def address(self):
        return f"127.0.0.1:{self.server_port}/{SECRET}"

    def messages(self):
        return [json.loads(body) for _, body in self.got]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.got.append((self.path, self.rfile.read(length).decode()))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def blocks(prefect, receiver):
    """A webhook, and Slack's block with an address that its library posts JSON to."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
    from prefect.blocks.system import Secret

    CustomWebhookNotificationBlock(
        name="ops",
        url=f"http://{receiver.address}",
        json_data={"title": "{{subject}}", "message": "{{body}}", "token": "{{token}}"},
        secrets={"token": SECRET},
    ).save("ops", overwrite=True)
    SlackWebhook(url=f"json://{receiver.address}").save("team", overwrite=True)
    Secret(value=SECRET).save("mute", overwrite=True)
    from aligntune.config.schedule import Notification

    return Notification(block="custom-webhook/ops"), Notification(block="slack-webhook/team")


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def config(tiny_model, output):
    path = output.with_name(f"{output.name}.yaml")
    path.write_text(CONFIG.format(model=tiny_model, output=output, steps=60))
    return path


@pytest.fixture(scope="module")
def interrupted(prefect, hub, config, output):
    """The end of a flow that got a SIGTERM in mid-training: its process, its output and its run."""
    process = started("flows.post_train", "--config", config)
    wait_for_checkpoint(output, process)
    (child,) = trainers(process.pid)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=180)
    return process, said, child, prefect.latest()


@pytest.fixture(scope="module")
def finished(interrupted, prefect, environment, hub, config):
    """The flow run of the same command again, while the hub refuses twice to be pushed to."""
    from flows import post_train

    environment.setattr(post_train, "RETRY_DELAYS", (0.5, 1.0, 2.0))
    hub.fail(503, path="/commit/", times=2, headers={"Retry-After": "3600"})
    post_train.run([config], [], f"aligntune flow --config {config}")
    return prefect.latest()


def trainers(parent: int) -> list[int]:
    return processes("aligntune.worker", parent)


def processes(module: str, parent: int) -> list[int]:
    """Processes of a module that were started for `parent`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if module in words and str(parent) in words:
            found.append(int(folder.name))
    return found
