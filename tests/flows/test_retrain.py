"""Retraining from the first champion on: what is run, what is not, and who decides."""

import asyncio
import json
import os
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from waits import until

from aligntune import promotion
from aligntune.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
CONFIG = """
algo: sft
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
datasets: [{{name: {folder}/rows.jsonl}}]
train: {{per_device_batch_size: 4, max_steps: 4, learning_rate: 1e-3}}
evaluation: {{datasets: [{{name: {folder}/test.jsonl}}], metrics: [nll], resamples: 100}}
registry: {{name: tiny, gates: [{{metric: nll, min_delta: -100}}]}}
retrain: {{start_from: champion}}
notifications: [{{block: custom-webhook/ops, on: [promoted, rejected, waiting, refused, failed]}}]
logging: {{output_dir: {folder}/output, run_name: nightly}}
"""
TRAINING = {"sft", "evaluate-base", "evaluate-champion", "evaluate-sft"}
NEVER = "registry.gates.0.min_delta=100"
APPROVAL = "retrain.approval=required"
PUSH = ("logging.push_to_hub=true", "logging.hub_model_id=me/tiny")


class World:
    """A config, its data and what became of its runs."""

    def __init__(self, folder, model, prefect, receiver, hub):
        self.folder, self.prefect, self.receiver, self.hub = folder, prefect, receiver, hub
        self.config = folder / "run.yaml"
        self.config.write_text(CONFIG.format(model=model, folder=folder))
        self.rows(12)
        asked = [{"prompt": f"{n} plus 100?", "completion": str(n + 100)} for n in range(8)]
        self.write("test.jsonl", asked)

    def write(self, name, rows):
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def rows(self, count):
        self.write(
            "rows.jsonl",
            [{"prompt": f"{n} plus {n}?", "completion": str(2 * n)} for n in range(count)],
        )

    def retrain(self, *settings):
        """The flow run of `aligntune retrain`, and its tasks' states by label."""
        from flows.retrain import run

        self.receiver.got.clear()
        run([self.config], settings, "aligntune retrain")
        flow_run = self.latest()
        tasks = self.prefect.tasks(flow_run)
        return flow_run.state, {label: task.state.name for label, task in tasks.items()}

    def latest(self):
        """The newest run of the flow."""
        from prefect.client.schemas.filters import FlowFilter

        only = FlowFilter(name={"any_": ["retrain"]})
        found = self.prefect._ask(
            lambda client: client.read_flow_runs(flow_filter=only, sort="START_TIME_DESC")
        )
        return max(found, key=lambda run: run.created)

    @property
    def client(self):
        uri = f"sqlite:///{self.folder}/output/mlflow.db"
        return MlflowClient(uri, uri)

    @property
    def aliases(self):
        held = self.client.get_registered_model("tiny.policy").aliases
        return {alias: str(version) for alias, version in held.items()}

    def tags(self, version):
        return self.client.get_model_version("tiny.policy", version).tags

    @property
    def pushes(self):
        return self.hub.count("POST", "/commit/")

    def counts(self):
        """Registered versions, MLflow runs, artifacts."""
        every = [e.experiment_id for e in self.client.search_experiments()]
        return (
            len(self.client.search_model_versions("name = 'tiny.policy'")),
            len(self.client.search_runs(every, max_results=5000)),
            len(list((self.folder / "output" / "stages").iterdir())),
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, prefect, blocks, receiver, hub):
    return World(tmp_path_factory.mktemp("retrain"), tiny_model, prefect, receiver, hub)


@pytest.fixture(scope="module")
def first(world):
    return world.retrain()


def test_the_first_run_makes_the_first_champion_and_tells_of_it(first, world):
    state, _ = first
    assert (state.type.value, state.name) == ("COMPLETED", "Promoted"), state.message
    assert world.aliases["champion"] == "1"
    (message,) = world.receiver.messages()
    assert message["title"] == "nightly: tiny.policy v1 promoted"
    assert "nll " in message["message"]
    assert "base " in message["message"]


@pytest.fixture(scope="module")
def unchanged(first, world):
    before = world.counts()
    return *world.retrain("logging.level=DEBUG"), before, world.counts()


def test_unchanged_nothing_is_run_or_registered(unchanged, world):
    state, tasks, before, after = unchanged
    assert (state.type.value, state.name) == ("COMPLETED", "NothingNew")
    assert "2 datasets" in state.message
    assert "champion v1" in state.message
    assert tasks == {"anything": "Completed"}
    assert before == after
    assert world.receiver.got == []


@pytest.fixture(scope="module")
def changed(unchanged, world):
    world.rows(16)
    return *world.retrain(), world.receiver.messages(), world.counts()


def test_new_rows_are_trained_on_from_the_champion_and_nothing_else_is_run_again(changed, world):
    state, tasks, _, _ = changed
    assert state.name == "Promoted", state.message
    cached = {label for label, name in tasks.items() if name == "Cached"}
    assert cached == {"model", "tokenizer", "eval-data", "evaluate-base"}
    assert {"start", "data", "sft", "evaluate-champion", "evaluate-sft"} <= set(tasks)
    assert world.aliases == {"candidate": "2", "champion": "2", "previous": "1"}
    assert world.tags("2")["aligntune.parent_version"] == "1"
    assert json.loads(world.tags("2")["aligntune.started_from"])["version"] == "1"


def test_the_message_says_which_rows_are_new(changed, world):
    (message,) = changed[2]
    assert f"data: {world.folder}/rows.jsonl: sha256 " in message["message"]
    assert "(12 rows) -> sha256 " in message["message"]
    assert "(16 rows)" in message["message"]


def test_the_same_rows_are_not_trained_on_again_from_the_new_champion(changed, world):
    state, tasks = world.retrain()
    assert state.name == "NothingNew"
    assert "champion v2" in state.message
    assert tasks == {"anything": "Completed"}
    assert world.counts() == changed[3]


def test_a_champion_that_other_gates_confirm_stays_and_is_no_new_one(changed, world, monkeypatch):
    told = []
    monkeypatch.setattr("flows.events.emit_event", lambda event, **_: told.append(event))
    state, _ = world.retrain("registry.gates.0.min_delta=-99")
    assert "v2 is the champion already and stays" in state.message
    assert told == []
    state, tasks = world.retrain()  # the gates as they were, whose decision is there
    assert tasks["promote"] == "Cached"
    assert world.retrain()[0].name == "NothingNew"


def test_a_champion_that_is_not_on_the_hub_yet_is_pushed_and_nothing_else_is_done(changed, world):
    assert world.pushes == 0
    state, tasks = world.retrain(*PUSH)
    assert state.name == "Promoted"
    assert tasks.pop("push") == "Completed"
    assert tasks.pop("anything") == "Completed"
    assert set(tasks.values()) == {"Cached"}
    assert world.pushes == 1
    assert world.retrain(*PUSH)[0].name == "NothingNew"


def test_a_missing_block_and_a_policy_that_promotes_nothing_are_found_first(changed, world):
    from flows.retrain import run

    world.rows(18)
    with pytest.raises(ConfigError, match="prefect block ls"):
        run([world.config], ["notifications=[{block: slack-webhook/none}]"], "x")
    assert world.prefect.tasks(world.latest()) == {}
    with pytest.raises(ConfigError, match=r"registry\.promote"):
        run([world.config], ["registry.promote=never"], "x")
    world.rows(16)


@pytest.fixture(scope="module")
def rejected(changed, world):
    world.rows(20)
    found = world.retrain(NEVER, *PUSH)
    return *found, world.receiver.messages(), world.retrain(NEVER)


def test_a_rejected_candidate_is_said_to_be_and_not_tried_again(rejected, world):
    state, ran, (message,), (again, tasks) = rejected
    assert state.name == "Rejected"
    assert "push" not in ran
    assert world.pushes == 1
    assert "nll" in state.message
    assert message["title"] == "nightly: tiny.policy v3 rejected"
    assert again.name == "NothingNew"
    assert "v3, which was rejected; champion v2 stays" in again.message
    assert tasks == {"anything": "Completed"}
    assert world.aliases["champion"] == "2"


def test_other_gates_decide_anew_without_training(rejected, world):
    state, tasks = world.retrain("registry.gates.0.min_delta=50")
    assert state.name == "Rejected"
    assert {tasks[label] for label in TRAINING} == {"Cached"}


def test_a_failure_is_told(rejected, world):
    from aligntune.errors import DataError
    from flows.retrain import run

    world.write("rows.jsonl", [{"unrelated": 1}])
    world.receiver.got.clear()
    with pytest.raises(DataError):
        run([world.config], [], "x")
    (message,) = world.receiver.messages()
    assert message["title"] == "nightly: failed"
    assert "DataError" in message["message"]
    world.rows(20)


SERVE = """
from prefect import serve
from flows.approval import promotion
from flows.retrain import retrain

serve(retrain.to_deployment("nightly"), promotion.to_deployment("nightly-approval"))
"""


@pytest.fixture(scope="module")
def served(rejected, world, environment):
    """Both deployments, served by a process of their own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        env=os.environ
        | {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_RUNNER_SERVER_ENABLE": "0"},
        cwd=world.folder,
    )
    yield process
    process.terminate()
    process.wait(60)


def deployed(world, deployment, settings, **parameters):
    """A flow run of a deployment."""
    from prefect.deployments import run_deployment

    given = {"configs": [str(world.config)], "overrides": list(settings), **parameters}
    found = []

    def there():
        try:
            found.append(run_deployment(deployment, parameters=given, timeout=0, as_subflow=False))
        except Exception:  # noqa: BLE001  # not served yet
            return False
        return True

    until(there, "the run")
    return found[0].id


def ended(world, flow_run_id, names, timeout=600):
    """The flow run once its state has one of these names."""
    found = []

    def there():
        found.append(world.prefect._ask(lambda client: client.read_flow_run(flow_run_id)))
        return found[-1].state.name in names or found[-1].state.type.value in ("FAILED", "CRASHED")

    until(there, "its end", timeout)
    assert found[-1].state.name in names, found[-1].state.message
    return found[-1]


def asked(world):
    """The suspended flow runs."""
    from prefect.client.schemas.filters import FlowRunFilter

    only = FlowRunFilter(state={"name": {"any_": ["Suspended"]}})
    return world.prefect._ask(lambda client: client.read_flow_runs(flow_run_filter=only))


def answer(flow_run_id, **said):
    from prefect.flow_runs import aresume_flow_run

    asyncio.run(aresume_flow_run(flow_run_id, run_input=said))


@pytest.fixture(scope="module")
def waiting(served, world):
    """The flow run of a retraining that leaves its candidate to a person, and the run that asks."""
    world.receiver.got.clear()
    training = ended(
        world, deployed(world, "retrain/nightly", [APPROVAL, *PUSH]), ["AwaitingApproval"]
    )
    until(lambda: len(asked(world)) == 1, "the question")
    return training, asked(world)[0], world.receiver.messages()


def test_a_candidate_that_passed_waits_in_a_suspended_flow_run(waiting, world):
    training, asking, messages = waiting
    assert "waits for a person" in training.state.message
    assert asking.name == "tiny.policy-v3"
    assert world.aliases["champion"] == "2"
    assert world.pushes == 1
    assert [message["title"] for message in messages] == [
        "nightly: tiny.policy v3 waits for approval"
    ]
    (page,) = [a for a in world.prefect.artifacts() if a.key == "tiny-policy-v3-approval"]
    assert "| nll |" in page.data
    assert "(16 rows) -\\> sha256" in page.data
    assert "report.html" in page.data


def test_who_waits_is_not_trained_again(waiting, world):
    state, _ = world.retrain(APPROVAL)
    assert state.name == "NothingNew"
    assert "waits to be approved" in state.message


def test_an_answer_without_a_name_is_refused_by_prefect(waiting):
    with pytest.raises(Exception, match="by"):
        answer(waiting[1].id, approve=True)


@pytest.fixture(scope="module")
def refused(waiting, world):
    world.receiver.got.clear()
    answer(waiting[1].id, approve=False, by="Ada", reason="too terse")
    return ended(world, waiting[1].id, ["Refused"]), world.receiver.messages()


def test_a_refusal_is_recorded_and_moves_no_alias(refused, world):
    flow_run, (message,) = refused
    assert flow_run.state.message == "v3 was not promoted: refused by Ada: too terse"
    assert message["title"] == "nightly: tiny.policy v3 not approved"
    assert world.aliases["champion"] == "2"
    assert world.tags("3")["aligntune.refused"].endswith("UTC Ada: too terse")
    pages = [a for a in world.prefect.artifacts() if a.key == "tiny-policy-v3-approval"]
    assert len(pages) == 1


def test_the_question_that_was_answered_leaves_no_planned_run(refused, world):
    runs = world.prefect._ask(lambda client: client.read_flow_runs())
    assert not [run for run in runs if run.name.endswith("unanswered")]


def test_who_was_refused_is_not_trained_again(refused, world):
    state, _ = world.retrain(APPROVAL)
    assert state.name == "NothingNew"
    assert "was not approved" in state.message
    assert "Ada: too terse" in state.message


@pytest.fixture(scope="module")
def unanswered(refused, world):
    """Asked again, with little time."""
    little = [APPROVAL, "retrain.approval_timeout=3"]
    asking = deployed(world, "promotion/nightly-approval", little, name="tiny.policy", version="3")
    return ended(world, asking, ["NotApproved"])


def test_nobody_answering_in_time_is_an_end_with_a_name(unanswered, world):
    assert "nobody answered within 0:00:03" in unanswered.state.message
    assert world.aliases["champion"] == "2"


@pytest.fixture(scope="module")
def approved(unanswered, waiting, world):
    assert world.pushes == 1
    asking = deployed(
        world,
        "promotion/nightly-approval",
        [APPROVAL, *PUSH],
        name="tiny.policy",
        version="3",
        decision=waiting[1].parameters["decision"],
    )
    ended(world, asking, ["Suspended"])
    answer(asking, approve=True, by="Ada", reason="")
    return ended(world, asking, ["Promoted"])


def test_an_approval_moves_the_aliases_and_says_by_whom(approved, world):
    assert "approved by Ada; pushed to http" in approved.state.message
    assert world.pushes == 2
    assert world.aliases["champion"] == "3"
    assert world.tags("3")["aligntune.promoted"].endswith("by its evidence, approved by Ada")


def test_what_is_approved_after_the_champion_moved_is_refused_with_the_reason(approved, world):
    root = world.folder / "output"
    promotion.promote("tiny.policy", "1", f"sqlite:///{root}/mlflow.db", root, reason="a test")
    asking = deployed(
        world, "promotion/nightly-approval", [APPROVAL], name="tiny.policy", version="3"
    )
    ended(world, asking, ["Suspended"])
    answer(asking, approve=True, by="Ada", reason="")
    state = ended(world, asking, ["Refused"]).state
    assert "compared with champion v2, and the champion is v1 now" in state.message
    assert world.aliases["champion"] == "1"
