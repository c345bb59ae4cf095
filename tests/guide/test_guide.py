"""The configuration guide is a contract: its blocks, as printed there, are configs that work."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

HERE = Path(__file__).parent
GUIDE = HERE.parents[2] / "shared" / "design" / "cli-configuration-guide.md"
BLOCKS = sorted(path.stem for path in HERE.glob("*.yaml"))
EXAMPLES = ("sft", "dpo", "ppo")
WHOLE = ("basic", *EXAMPLES)
REPAIRED = {"basic", "datasets", "rewards", *EXAMPLES}
"""Blocks that are not YAML as they stand."""
BASE = """
algo: {algo}
model: {{name_or_path: microsoft/DialoGPT-medium}}
datasets: [{{name: Anthropic/hh-rlhf}}]
rewards: [{{reward_type: length}}]
"""
FEW_STEPS = (
    "--max-steps=2", "--max-samples=60", "--set=model.max_seq_length=96",
    "--set=evaluation.max_new_tokens=4", "--set=evaluation.max_samples=4",
    "--set=evaluation.resamples=100", "--set=logging.eval_steps=2",
)  # fmt: skip


@pytest.mark.skipif(not GUIDE.exists(), reason="the guide itself lies outside the repository")
def test_the_blocks_are_the_guides_own():
    found = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert sorted(found) == sorted((HERE / f"{name}.yaml").read_text() for name in BLOCKS)


def test_some_blocks_are_no_yaml():
    broken = {name for name in BLOCKS if not _parses(HERE / f"{name}.yaml")}
    assert broken == REPAIRED


def _parses(path):
    try:
        yaml.safe_load(path.read_text())
    except yaml.YAMLError:
        return False
    return True


@pytest.fixture
def run(hub, tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "aligntune", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | hub.env(tmp_path) | {"COLUMNS": "200"},
        )

    return run


def _configs(name, tmp_path):
    if name in WHOLE:
        return ["--config", HERE / f"{name}.yaml"]
    base = tmp_path / "base.yaml"
    base.write_text(BASE.format(algo="ppo" if name == "rewards" else "dpo"))
    return ["--config", base, "--config", HERE / f"{name}.yaml"]


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("verb", ["validate", "plan"])
def test_every_block_is_valid_and_can_be_planned(run, tmp_path, verb, name):
    done = run(verb, *_configs(name, tmp_path))
    assert done.returncode == 0, done.stderr
    assert ("dash's own column" in done.stderr) == (name in REPAIRED)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_complete_example_trains(run, tmp_path, name):
    done = run("train", "--config", HERE / f"{name}.yaml", *FEW_STEPS)
    assert done.returncode == 0, done.stderr
    output = tmp_path / "output" / f"{name}_training"
    (manifest,) = output.glob(f"stages/{name}-*/manifest.json")
    record = json.loads(manifest.read_text())
    assert record["metrics"]["steps"] == 2
    section = re.search(r"^train:\n(?: .*\n)+", (HERE / f"{name}.yaml").read_text(), re.MULTILINE)
    written = yaml.safe_load(section[0])["train"]
    used = record["identity"]["config"]["train"]
    for key in written.keys() - {"max_steps"}:
        assert used[key] == pytest.approx(float(written[key])), key
    assert (output / "runs" / f"{name}_experiment" / "model" / "config.json").exists()


def test_flags_override_the_file_and_are_recorded(run, tmp_path):
    flags = ("--max-steps", 3, "--learning-rate", "1e-5", "--max-samples", 40)
    done = run("train", "--config", HERE / "sft.yaml", *FEW_STEPS, *flags)
    assert done.returncode == 0, done.stderr
    output = tmp_path / "output" / "sft_training"
    resolved = output / "runs" / "sft_experiment" / "config.yaml"
    train = yaml.safe_load(resolved.read_text())["train"]
    assert (train["max_steps"], float(train["learning_rate"])) == (3, 1e-5)
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    runs = client.search_runs([experiment.experiment_id])
    logged = [dict(found.data.params) for found in runs if "train.max_steps" in found.data.params]
    assert len(logged) == 2, "the run, and its sft stage"
    for params in logged:
        assert (params["train.max_steps"], float(params["train.learning_rate"])) == ("3", 1e-5)
    again = run("train", "--config", resolved, "--json")
    assert again.returncode == 0, again.stderr
    stages = json.loads(again.stdout)["stages"]
    assert [stage["label"] for stage in stages if not stage["reused"]] == []
