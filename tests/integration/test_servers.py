"""A pipeline whose MLflow is a real server, on PostgreSQL and S3, that dies in the middle."""

import json
import time
from collections import Counter
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import servers
from local import PORTS
from mlflow import MlflowClient
from proxy import Proxy
from waits import until

from aligntune.artifacts import find
from aligntune.identity import flat
from aligntune.journal import read

pytestmark = pytest.mark.slow

OUTAGE = 20.0
"""Seconds."""
BUILT = (
    "model", "tokenizer", "eval-data", "sft-data", "data", "sft", "dpo",
    "evaluate-base", "evaluate-sft", "evaluate-dpo", "register",
    "decide", "promote",
)  # fmt: skip


@pytest.fixture(scope="module")
def server():
    """A stack whose MLflow runs, and whose credentials are in the environment."""
    with servers.stack() as stack, pytest.MonkeyPatch.context() as patch:
        stack.up("postgres", "s3", "mlflow")
        for name, value in stack.env().items():
            if name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
                patch.setenv(name, value)
        yield stack


@pytest.fixture(scope="module")
def line(server):
    with Proxy(server.port + PORTS["mlflow"]) as line:
        yield line


@pytest.fixture
def client(line):
    line.set("pass")
    return MlflowClient(line.url)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("output")


@pytest.fixture
def train(aligntune, write_config, output, line):
    """Starts the run, with MLflow at the other end of the line."""
    config = write_config(output)

    def start(*arguments, command="train"):
        given = ("--output-dir", output) if command == "sync" else ("--config", config)
        return aligntune(command, *given, *arguments, MLFLOW_TRACKING_URI=line.url)

    return start


@pytest.fixture
def survived(train, output, server, line):
    """The output of a run in whose middle answers got lost and then the server died."""
    if (output / "runs" / "tiny" / "report.html").exists():
        return output
    process = train("--set", "sft.train.max_steps=60")
    sft = lambda: list((output / "stages").glob("sft-*.partial/metrics.jsonl"))  # noqa: E731
    until(lambda: bool(sft()) or process.poll() is not None, "sft")
    line.set("deaf")
    until(lambda: line.swallowed > 0 or process.poll() is not None, "a lost answer")
    line.set("refuse")
    server.kill("mlflow")
    assert process.poll() is None, process.communicate()[0]
    time.sleep(OUTAGE)
    server.up("mlflow")
    line.set("pass")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert said.count("MLflow does not answer") >= 1
    assert "aligntune sync --output-dir" not in said, "it should have caught up by itself"
    return output


def search(client, text=""):
    where = client.get_experiment_by_name("aligntune").experiment_id
    return client.search_runs([where], text, max_results=1000)


def stages(output, run="tiny"):
    """Label -> artifact of a run."""
    found = {}
    for link in sorted((output / "runs" / run / "stages").iterdir()):
        kind, _, key = link.resolve().name.rpartition("-")
        found[link.name] = find(output / "stages", kind, key)
    return found


def check(client, output, parent):
    """That MLflow has all that the journals and manifests have, once."""
    children = search(client, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert Counter(run.data.tags["aligntune.stage"] for run in children) == Counter(BUILT)
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    made = stages(output)
    for run in children:
        artifact = made[run.data.tags["aligntune.stage"]]
        check_stage(client, run, artifact)
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"config.yaml", "plan.json", "environment.txt", "report.html"}
    return {run.data.tags["aligntune.stage"]: run for run in children}


def check_stage(client, run, artifact):
    manifest = artifact.manifest
    assert run.data.tags["aligntune.artifact"] == artifact.name
    choice = manifest.facts.get("choice", {})
    chosen = {f"chosen.{name}": value for name, value in choice.items() if name != "reasons"}
    config = flat(manifest.identity["config"]) | {"key": manifest.key}
    assert run.data.params == {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in (config | chosen).items()
        if value is not None
    }
    expected = Counter(
        (name, row.step, row.time, value)
        for row in read(artifact.path / "metrics.jsonl")
        for name, value in row.metrics.items()
    )
    names = {name for name, *_ in expected}
    arrived = Counter(
        (name, point.step, point.timestamp, point.value)
        for name in names
        for point in client.get_metric_history(run.info.run_id, name)
    )
    assert arrived == expected
    for name, value in manifest.metrics.items():
        (point,) = client.get_metric_history(run.info.run_id, name)
        assert point.value == pytest.approx(value)
    files = {file.path: file.file_size for file in client.list_artifacts(run.info.run_id)}
    small = {
        name: entry.size
        for name, entry in manifest.files.items()
        if "/" not in name and entry.size > 0
    }
    assert {name: files.get(name) for name in small} == small
    assert files.keys() == {*small, "manifest.json"}


def test_servers_listen_on_loopback_and_ask_who_it_is(server):
    listening = {
        found.laddr.ip
        for process in server.processes()
        for found in process.net_connections()
        if found.status == "LISTEN"
    }
    assert listening == {"127.0.0.1"}
    for name, path in (("mlflow", "/api/2.0/mlflow/experiments/get?experiment_id=0"), ("s3", "/x")):
        with pytest.raises(HTTPError) as refused:
            urlopen(server.url(name) + path, timeout=60)
        assert refused.value.code in (401, 403), name


def test_a_server_that_dies_in_the_middle_costs_nothing_and_doubles_nothing(survived, client):
    (parent,) = search(client, "tags.`aligntune.role` = 'pipeline'")
    children = check(client, survived, parent)
    assert len(search(client)) == len(BUILT) + 1
    assert client.get_metric_history(children["sft"].info.run_id, "train/loss")[-1].step == 60
    digests = {i.dataset.digest for i in children["sft"].inputs.dataset_inputs}
    known = stages(survived)["sft-data"].manifest.facts["digests"].values()
    assert digests == {digest[:36] for digest in known}
    versions = client.search_model_versions("name = 'tiny.policy'")
    labels = {version.run_id: version for version in versions}
    assert labels.keys() == {children["sft"].info.run_id, children["dpo"].info.run_id}
    assert len(versions) == 2
    assert list((survived / "outbox").glob("*/record.json")) == []


def test_who_knows_mlflow_only_finds_everything(survived, client):
    (parent,) = search(client, "attributes.run_name = 'tiny' and params.`train.beta` = '0.1'")
    (sft,) = search(client, "tags.`aligntune.stage` = 'sft' and metrics.final_loss < 100")
    (dpo,) = search(client, f"tags.`aligntune.input_run.model` = '{sft.info.run_id}'"
                            " and tags.`aligntune.stage` = 'dpo'")  # fmt: skip
    assert dpo.data.tags["mlflow.parentRunId"] == parent.info.run_id
    for run in (parent, dpo):
        assert run.data.tags["version.torch"]
        assert run.data.tags["mlflow.source.git.commit"]
        assert "`" in run.data.tags["mlflow.note.content"]
    assert parent.data.metrics["dpo/exact_match"] >= 0


def test_a_registered_version_is_a_directory_for_from_pretrained(
    survived, client, line, tmp_path, monkeypatch
):
    import mlflow
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("MLFLOW_TRACKING_URI", line.url)
    folder = mlflow.artifacts.download_artifacts("models:/tiny.policy/1", dst_path=str(tmp_path))
    AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    trained = stages(survived)["sft"].path / "model" / "model.safetensors"
    assert (Path(folder) / "model.safetensors").read_bytes() == trained.read_bytes()


def test_away_for_good_then_sync_and_the_same_command(survived, train, client, line):
    before = {run.info.run_id for run in search(client)}
    changed = ("--set", "sft.train.max_steps=60", "--set", "train.beta=0.2")
    line.set("refuse")
    process = train(*changed)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 69, said
    assert "ERROR 69 register: MLflow does not answer" in said
    assert list((survived / "stages").glob("dpo-*/model/model.safetensors"))[1:]
    line.set("pass")
    synced = train("--json", command="sync")
    said, _ = synced.communicate(timeout=120)
    begun = BUILT[: BUILT.index("register") + 1]
    assert json.loads(said)["sent"] == len(begun) + 1
    again = train("--json", command="sync")
    assert json.loads(again.communicate(timeout=120)[0])["sent"] == 0
    new = {run.info.run_id: run for run in search(client) if run.info.run_id not in before}
    (parent,) = (run for run in new.values() if run.data.tags["aligntune.role"] == "pipeline")
    assert parent.info.status == "FAILED"
    (dpo,) = (run for run in new.values() if run.data.tags.get("aligntune.stage") == "dpo")
    check_stage(client, dpo, stages(survived)["dpo"])
    (sft,) = (run for run in new.values() if run.data.tags.get("aligntune.stage") == "sft")
    assert sft.data.tags["aligntune.cached_from"] in before
    process = train(*changed)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert client.get_run(parent.info.run_id).info.status == "FINISHED"
    children = search(client, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert Counter(run.data.tags["aligntune.stage"] for run in children) == Counter(BUILT)
    assert len(client.search_model_versions("name = 'tiny.policy'")) == 3
