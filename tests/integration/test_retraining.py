"""A team's night: five servers and a schedule that fires; runs that find nothing new, learn from
new rows, are cancelled, lose a server or their worker."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import servers
from browser import CHROMIUM, page
from mlflow import MlflowClient
from waits import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]

CONFIG = """
algo: dpo
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
sft:
  datasets: [{{name: "arithmetic:", params: {{count: 64, seed: 1}}}}]
  train: {{per_device_batch_size: 4, max_steps: 12, learning_rate: 1e-3}}
datasets: [{{name: pairs.jsonl}}]
train: {{per_device_batch_size: 4, max_steps: 8, learning_rate: 1e-4, beta: 0.1}}
evaluation:
  datasets: [{{name: "arithmetic:", split: test, params: {{count: 12, seed: 3}}}}]
  max_new_tokens: 8
  resamples: 200
registry: {{name: tiny, gates: [{{metric: preference_accuracy, min_delta: -0.9}}]}}
deployment: {{name: nightly, pool: default}}
schedules: [{{cron: "* * * * *"}}]
logging: {{output_dir: output, run_name: nightly, save_steps: 4}}
"""
INFRA = Path(__file__).parents[2] / "infra"
OVER = {"COMPLETED", "CANCELLED", "FAILED", "CRASHED"}
LONG = "train.max_steps=240"
"""A training that lasts long enough to be disturbed."""


class Team:
    """Someone at a shell, in a folder with a config, and what Prefect and MLflow say."""

    def __init__(self, stack, folder, model):
        self.stack, self.folder, self.env = stack, folder, stack.env()
        (folder / "run.yaml").write_text(CONFIG.format(model=model))
        self.add_rows(range(2, 26))
        login = tuple(self.env["PREFECT_API_AUTH_STRING"].split(":"))
        self.api = httpx.Client(base_url=self.env["PREFECT_API_URL"], auth=login, timeout=30)

    def add_rows(self, numbers):
        with (self.folder / "pairs.jsonl").open("a") as file:
            for n in numbers:
                row = {"prompt": f"What is {n} plus {n}?", "chosen": f"{2 * n}", "rejected": "7"}
                file.write(json.dumps(row) + "\n")

    def shell(self, *words):
        """What `aligntune ...` prints."""
        said = subprocess.run(
            [sys.executable, "-m", "aligntune", *words],
            cwd=self.folder, capture_output=True, text=True, timeout=180, env=os.environ | self.env,
        )  # fmt: skip
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    def trigger(self, *settings):
        given = [word for setting in settings for word in ("--set", setting)]
        (found,) = re.findall(r"\(([0-9a-f-]{36})\)", self.shell("trigger", "nightly", *given))
        return found

    def ask(self, path, body=None):
        reply = self.api.get(path) if body is None else self.api.post(path, json=body)
        reply.raise_for_status()
        return reply.json() if reply.content else None

    def runs(self):
        """Flow runs of the deployment, first the first to start."""
        flows = {"name": {"any_": ["retrain"]}}
        return self.ask("/flow_runs/filter", {"flows": flows, "sort": "START_TIME_ASC"})

    def ended(self, run, seconds=300):
        """The flow run when it is over."""
        until(lambda: self.state(run)["type"] in OVER, f"flow run {run}", seconds)
        return self.ask(f"/flow_runs/{run}")

    def state(self, run):
        return self.ask(f"/flow_runs/{run}")["state"]

    def tasks(self, run):
        """Stage -> name of the state of its task; of states come late, after the run's."""
        body = {"flow_runs": {"id": {"any_": [run]}}}
        time.sleep(1)
        found = self.ask("/task_runs/filter", body)
        return {task["name"].split()[0]: task["state"]["name"] for task in found}

    def artifacts(self, run):
        body = {"flow_runs": {"id": {"any_": [run]}}}
        return {each["key"]: each for each in self.ask("/artifacts/filter", body)}

    def log(self, run):
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(line["message"] for line in self.ask("/logs/filter", body))

    def training(self, run):
        """Wait until the run has a checkpoint of a training that goes on."""
        partial = lambda: list(  # noqa: E731
            (self.folder / "output/stages").glob("dpo-*.partial/work/checkpoints/step-*")
        )
        until(lambda: bool(partial()) or self.state(run)["type"] in OVER, "a checkpoint", 300)
        assert self.state(run)["type"] == "RUNNING", self.state(run)

    def trainers(self):
        return [p for p in self.stack.processes() if "aligntune.worker" in p.cmdline()]

    def champion(self):
        return MlflowClient().get_model_version_by_alias("tiny.policy", "champion").version


@pytest.fixture(scope="module")
def team(tiny_model, tmp_path_factory):
    with servers.stack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "2")
        # As a person does it.
        started = {"ALIGNTUNE_LOCAL": stack.folder, "ALIGNTUNE_LOCAL_PORT": str(stack.port)}
        subprocess.run(
            [INFRA / "local.sh", "up"], check=True, timeout=400,
            env=os.environ | started | {"PYTHON": sys.executable},
        )  # fmt: skip
        for name, value in stack.env().items():
            patch.setenv(name, value)
        yield Team(stack, tmp_path_factory.mktemp("team"), tiny_model)


@pytest.fixture(scope="module")
def first(team):
    """The run that the schedule started, when it is over; then the schedule is paused."""
    team.shell("deploy", "--config", "run.yaml")
    until(lambda: any(run["start_time"] for run in team.runs()), "the schedule", 240)
    team.shell("pause", "nightly")
    ended = [team.ended(run["id"]) for run in team.runs() if run["start_time"]]
    return ended[0]


@pytest.fixture(scope="module")
def second(team, first):
    return team.ended(team.trigger())


@pytest.fixture(scope="module")
def third(team, second):
    """After new rows; Prefect's server is away while it trains."""
    team.add_rows(range(26, 34))
    run = team.trigger(LONG)
    team.training(run)
    team.stack.kill("prefect")
    time.sleep(float(os.environ.get("OUTAGE", "10")))
    team.stack.up("prefect")
    return team.ended(run)


@pytest.fixture(scope="module")
def cancelled(team, third):
    """Cancelled as Prefect's page does it, in mid-training."""
    run = team.trigger("train.max_steps=241")
    team.training(run)
    (trainer,) = team.trainers()
    state = {"state": {"type": "CANCELLING"}, "force": False}
    team.ask(f"/flow_runs/{run}/set_state", state)
    ended = team.ended(run)
    until(lambda: not trainer.is_running(), "the trainer's end", 60)
    return ended


@pytest.fixture(scope="module")
def successor(team, cancelled):
    """The same again, whose worker is killed in mid-training."""
    run = team.trigger("train.max_steps=241")
    until(lambda: "continuing from checkpoint" in team.log(run), "the training", 300)
    team.stack.kill("worker")
    team.stack.up("worker")
    return team.ended(run)


@pytest.fixture(scope="module")
def last(team, successor):
    """What the next run makes of it, where that one did not get through without its worker."""
    if successor["state"]["type"] == "COMPLETED":
        return successor
    return team.ended(team.trigger("train.max_steps=241"))


def test_a_schedule_starts_a_run_that_makes_the_first_champion(team, first):
    assert first["auto_scheduled"] is True
    assert first["state"]["name"] == "Promoted", first["state"]
    tasks = team.tasks(first["id"])
    assert tasks["sft"] == tasks["dpo"] == "Completed"
    assert f"v{team.champion()}" in first["state"]["message"]
    files = MlflowClient().list_artifacts(first_mlflow_run(team))
    assert {file.path for file in files} >= {"config.yaml", "report.html"}


def first_mlflow_run(team):
    client = MlflowClient()
    where = client.get_experiment_by_name("aligntune").experiment_id
    found = client.search_runs([where], "tags.`aligntune.role` = 'pipeline'")
    return found[-1].info.run_id


def test_with_unchanged_data_nothing_is_new_within_30_seconds(team, second):
    assert second["state"]["name"] == "NothingNew", second["state"]
    assert second["total_run_time"] < 30
    assert team.tasks(second["id"]).keys() == {"anything"}


def test_new_rows_retrain_only_what_depends_on_them_while_prefect_is_away(team, first, third):
    assert third["state"]["name"] in ("Promoted", "Rejected"), third["state"]
    assert re.search(r"candidate v\d+: .*preference_accuracy", third["state"]["message"])
    tasks = team.tasks(third["id"])
    reused = {label for label, state in tasks.items() if state == "Cached"}
    assert reused == {"model", "tokenizer", "eval-data", "sft-data", "sft", "evaluate-base",
                      "evaluate-sft"}  # fmt: skip
    assert team.champion() == re.search(r"candidate v(\d+)", third["state"]["message"])[1]


def test_cancelled_in_mid_training_it_leaves_a_checkpoint_and_no_process(team, cancelled):
    assert cancelled["state"]["type"] == "CANCELLED", cancelled["state"]
    (partial,) = (team.folder / "output/stages").glob("dpo-*.partial")
    assert list(partial.glob("work/checkpoints/step-*"))


def test_its_successor_continues(team, successor):
    assert continued_from(team, successor) > 0


def test_the_death_of_a_worker_costs_no_result(team, successor, last):
    assert last["state"]["name"] in ("Promoted", "Rejected"), (successor["state"], last["state"])
    tasks = team.tasks(last["id"])
    # The trainer may have ended its stage before its flow noticed that nobody reads it any more.
    if tasks["dpo"] != "Cached":
        assert continued_from(team, last) >= continued_from(team, successor)
    assert {tasks[stage] for stage in ("model", "sft-data", "sft", "data")} == {"Cached"}


def continued_from(team, run):
    """The step of the checkpoint that the run's training began with."""
    return int(re.search(r"continuing from checkpoint step-(\d+)", team.log(run["id"]))[1])


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_prefects_pages_show_tasks_results_and_links(team, first):
    login = base64.b64encode(team.env["PREFECT_API_AUTH_STRING"].encode()).decode()
    url = team.stack.url("prefect")
    pictures = Path(os.environ.get("PICTURES", team.folder))
    with page({"Authorization": f"Basic {login}"}) as shown:
        shown.open(f"{url}/runs/flow-run/{first['id']}")
        shown.wait_for("Promoted", "sft", "dpo", "evaluate-dpo")
        shown.picture(pictures / "flow-run.png")
        found = team.artifacts(first["id"])
        mlflow = team.stack.url("mlflow")
        for key, words, pages in (
            ("dpo", ("final_loss", "MLflow run"), ("experiments",)),
            ("retrain", ("promoted", "preference_accuracy"), ("experiments", "models")),
        ):
            shown.open(f"{url}/artifacts/artifact/{found[f'nightly-{key}']['id']}")
            shown.wait_for(*words)
            shown.picture(pictures / f"{key}.png")
            for each in pages:
                assert any(link.startswith(f"{mlflow}/#/{each}/") for link in shown.links()), each
