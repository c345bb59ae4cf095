"""The whole pipeline: what a run leaves behind, what the next one reuses, what a change reruns."""

import json
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from own_process import printed

from aligntune.artifacts import find
from aligntune.config.load import load
from aligntune.digest import sha256
from aligntune.direct import post_train
from aligntune.estimate.room import keeps_heap
from aligntune.plan import plan

STAGES = [
    "model", "tokenizer", "eval-data", "sft-data", "data", "sft", "dpo",
    "evaluate-base", "evaluate-sft", "evaluate-dpo", "register", "decide", "promote",
]  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("output")


@pytest.fixture
def config_path(write_config, output):
    return write_config(output)


@pytest.fixture
def finished(config_path, output):
    """The output of at least one whole run."""
    if not (output / "runs" / "tiny" / "report.html").exists():
        post_train(load([config_path]), "aligntune train")
    return output


@pytest.fixture
def client(finished):
    return MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")


def runs(client, filter_string=""):
    experiment = client.get_experiment_by_name("aligntune")
    return client.search_runs([experiment.experiment_id], filter_string, max_results=1000)


def states(config_path, *overrides):
    planned = plan(load([config_path], overrides)).stages
    return {entry.stage.label: entry.why if entry.artifact is None else "" for entry in planned}


def test_every_stage_leaves_an_artifact_that_verifies(finished, config_path):
    planned = plan(load([config_path])).stages
    assert [entry.stage.label for entry in planned] == STAGES
    for entry in planned:
        stage = entry.stage
        assert find(finished / "stages", stage.kind, stage.key, verify=True), stage.label


def test_the_final_model_loads_with_from_pretrained(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(finished / "runs" / "tiny" / "model")
    tokenizer = AutoTokenizer.from_pretrained(finished / "runs" / "tiny" / "model")
    assert tokenizer.chat_template
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)


def test_training_changed_the_weights_and_lowered_the_loss(finished, config_path):
    made = plan(load([config_path]))
    weights = [
        sha256(made[label].artifact.path / "model" / "model.safetensors")
        for label in ("model", "sft", "dpo")
    ]
    assert len(set(weights)) == 3
    metrics = made["sft"].artifact.manifest.metrics
    assert metrics["final_loss"] < metrics["train_loss"]


def test_no_pickle_with_arguments_is_left_anywhere(finished):
    assert not list(finished.rglob("training_args.bin"))


def test_a_run_is_a_tree_in_mlflow(finished, client):
    parent = [r for r in runs(client) if r.data.tags["aligntune.role"] == "pipeline"][-1]
    family = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    children = runs(client, family)
    assert {r.data.tags["aligntune.stage"] for r in children} == set(STAGES)
    assert {r.info.status for r in [parent, *children]} == {"FINISHED"}
    assert parent.data.params["train.beta"] == "0.1"


def test_metrics_are_in_mlflow_by_step_and_once(finished, client):
    (sft,) = [
        r
        for r in runs(client, "tags.`aligntune.stage` = 'sft'")
        if not r.data.tags.get("aligntune.cached_from")
    ]
    history = client.get_metric_history(sft.info.run_id, "train/loss")
    assert sorted(point.step for point in history) == list(range(1, 13))
    assert sft.data.params["train.learning_rate"] == "0.001"


def test_what_a_stage_chose_is_in_its_facts_and_in_mlflow(finished, client, config_path):
    made = plan(load([config_path]))
    for label, on in (("sft", True), ("dpo", False)):  # dpo beside a reference keeps TRL's forward
        chosen = made[label].artifact.manifest.facts["choice"]
        assert (chosen["plain_head"], chosen["padding_free"]) == (on, on)
        assert chosen["kept_heap"] in ({on, False} if keeps_heap() else {False})
        decided = {"plain_head", "padding_free", "gradient_checkpointing"}
        assert chosen["reasons"].keys() == decided | ({"kept_heap"} if keeps_heap() else set())
        (run,) = [
            r
            for r in runs(client, f"tags.`aligntune.stage` = '{label}'")
            if not r.data.tags.get("aligntune.cached_from")
        ]
        params = {name: v for name, v in run.data.params.items() if name.startswith("chosen.")}
        del chosen["reasons"]
        assert params == {f"chosen.{name}": str(v).lower() for name, v in chosen.items()}


def test_data_is_in_mlflow_with_our_digest(finished, client, config_path):
    digest = plan(load([config_path]))["sft-data"].artifact.manifest.facts["digests"]["train"]
    (sft,) = [
        r
        for r in runs(client, "tags.`aligntune.stage` = 'sft'")
        if not r.data.tags.get("aligntune.cached_from")
    ]
    (used,) = sft.inputs.dataset_inputs
    assert digest.startswith(used.dataset.digest)
    assert len(used.dataset.digest) >= 32


def test_each_trained_model_is_one_registered_version_with_its_lineage(finished, client):
    versions = {
        v.tags["aligntune.algorithm"]: v for v in client.search_model_versions("name='tiny.policy'")
    }
    assert versions["dpo"].tags["aligntune.parent_version"] == str(versions["sft"].version)
    candidate = client.get_model_version_by_alias("tiny.policy", "candidate")
    assert candidate.version == versions["dpo"].version


def test_a_registered_version_downloads_and_loads(finished, tmp_path, monkeypatch):
    import mlflow
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished / 'mlflow.db'}")
    folder = mlflow.artifacts.download_artifacts(
        "models:/tiny.policy@candidate", dst_path=str(tmp_path)
    )
    AutoModelForCausalLM.from_pretrained(folder)


def test_the_report_is_one_file_that_tells_of_all_models(finished):
    report = (finished / "runs" / "tiny" / "report.html").read_text()
    for text in ("base", "sft", "dpo", "exact_match", "<svg"):
        assert text in report


def test_the_resolved_config_gives_the_same_plan(finished, config_path):
    again = plan(load([finished / "runs" / "tiny" / "config.yaml"]))
    assert [e.stage.name for e in again.stages] == [
        e.stage.name for e in plan(load([config_path])).stages
    ]


def test_running_again_reuses_everything_and_registers_nothing(finished, config_path, client):
    before = {p: p.stat().st_mtime_ns for p in (finished / "stages").rglob("*") if p.is_file()}
    versions = len(client.search_model_versions("name='tiny.policy'"))
    post_train(load([config_path]), "aligntune train")
    after = {p: p.stat().st_mtime_ns for p in (finished / "stages").rglob("*") if p.is_file()}
    assert {p: t for p, t in after.items() if ".locks" not in p.parts} == {
        p: t for p, t in before.items() if ".locks" not in p.parts
    }
    assert len(client.search_model_versions("name='tiny.policy'")) == versions


def test_running_again_by_command_loads_no_mlflow_and_tells_it_afterwards(
    finished, config_path, client
):
    seen = """
import sys
sys.argv = ["aligntune", "train", "--config", sys.argv[1]]
from aligntune.cli import main
main()
print(*sys.modules)
"""
    before = len(runs(client))
    again = printed(seen, config_path)
    assert "everything was reused" in again
    loaded = set(again.splitlines()[-1].split())
    assert not {"mlflow", "torch", "transformers", "pandas", "trl", "prefect"} & loaded
    told, end = before, time.monotonic() + 300
    while told < before + 1 + len(STAGES) and time.monotonic() < end:
        time.sleep(0.5)
        told = len(runs(client, "attributes.status = 'FINISHED'"))
    assert told == before + 1 + len(STAGES)


def test_changing_one_rl_setting_reruns_only_what_depends_on_it(finished, config_path):
    changed = {label: why for label, why in states(config_path, "train.beta=0.2").items() if why}
    assert list(changed) == ["dpo", "evaluate-dpo", "register", "decide", "promote"]
    assert changed["dpo"] == "train.beta changed"


@pytest.mark.parametrize(
    "override", ["logging.run_name=other", "logging.level=DEBUG", "logging.save_steps=7"]
)
def test_settings_that_cannot_change_a_result_rerun_nothing(finished, config_path, override):
    assert not any(states(config_path, override).values())


def test_another_seed_reruns_what_is_random(finished, config_path):
    changed = states(config_path, "seed=7")
    assert not changed["model"]
    assert changed["sft"]


def test_another_chat_template_reruns_everything_that_reads_the_model(
    finished, config_path, tmp_path
):
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}")
    changed = states(config_path, f"model.chat_template={template}")
    assert {label for label, why in changed.items() if not why} == {"eval-data"}


def test_a_manifest_names_everything_it_was_made_from(finished, config_path):
    made = plan(load([config_path]))
    manifest = json.loads((made["dpo"].artifact.path / "manifest.json").read_text())
    assert manifest["inputs"] == {"model": made["sft"].stage.name, "data": made["data"].stage.name}
    assert {"python", "torch", "transformers", "trl", "aligntune"} <= set(manifest["environment"])
    assert Path(made["dpo"].artifact.path / "model" / "model.safetensors").exists()
