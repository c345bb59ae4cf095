"""Promotion in whole runs: which candidate becomes the champion, and what that reruns."""

import json

import pytest
from mlflow import MlflowClient

from aligntune.config.load import load
from aligntune.direct import post_train
from aligntune.plan import plan
from aligntune.promotion import rollback

CONFIG = """
algo: sft
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
datasets: [{{name: "arithmetic:", params: {{count: 32, seed: 1}}}}]
train: {{per_device_batch_size: 4, max_steps: 8, learning_rate: 1e-3}}
evaluation:
  datasets: [{{name: {rows}}}]
  metrics: [nll, answer_tokens]
  max_new_tokens: 4
  resamples: 200
registry: {{name: tiny}}
logging: {{output_dir: {output}, run_name: tiny}}
"""
NAME = "tiny.policy"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def config_path(tiny_model, output):
    path, rows = output / "run.yaml", output / "heldout.jsonl"
    lines = [{"prompt": f"What is {n} plus 30?", "completion": f"{n + 30}"} for n in range(24)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path.write_text(CONFIG.format(model=tiny_model, rows=rows, output=output / "out"))
    return path


@pytest.fixture(scope="module")
def train(config_path, output):
    """Runs with overrides; returns the run's facts about its promotion and who holds what."""

    def train(*overrides):
        post_train(load([config_path], overrides), "aligntune train")
        run = output / "out" / "runs" / "tiny"
        manifest = json.loads((run / "stages" / "promote" / "manifest.json").read_text())
        client = MlflowClient(f"sqlite:///{output / 'out' / 'mlflow.db'}")
        aliases = {k: str(v) for k, v in client.get_registered_model(NAME).aliases.items()}
        return manifest["facts"], aliases

    return train


def to_run(config_path, *overrides):
    stages = plan(load([config_path], overrides)).stages
    return [entry.stage.label for entry in stages if entry.artifact is None]


def test_the_story_of_a_champion(train, config_path, output, capsys):
    # The first candidate is better than the base model, and there is no champion yet.
    facts, aliases = train()
    assert (facts["verdict"], facts["promoted"]) == ("promote", True)
    assert aliases == {"candidate": "1", "champion": "1"}
    assert "better than base" in facts["why"]
    assert to_run(config_path) == [], "the same command again reuses everything"

    # One that learned less is worse than the champion: the run ends well, and nothing moves.
    facts, aliases = train("train.max_steps=2")
    assert (facts["verdict"], facts["promoted"]) == ("reject", False)
    assert aliases == {"candidate": "2", "champion": "1"}
    assert "worse than champion" in facts["why"]
    assert "candidate v2 was rejected: worse: nll 0." in capsys.readouterr().out
    assert "candidate v2 was rejected" in (output / "out/runs/tiny/report.html").read_text()

    # One that learned more replaces it.
    facts, aliases = train("train.max_steps=30")
    assert facts["promoted"]
    assert aliases == {"candidate": "3", "champion": "3", "previous": "1"}
    assert to_run(config_path, "train.max_steps=30") == []

    # Rolled back it stays so, and the same run again does not say that it is the champion.
    place = f"sqlite:///{output / 'out' / 'mlflow.db'}", output / "out"
    rollback(NAME, *place)
    capsys.readouterr()
    _, aliases = train("train.max_steps=30")
    assert aliases == {"candidate": "3", "champion": "1", "previous": "3"}
    said = capsys.readouterr().out
    assert "candidate v3 passed, and was the champion: another is now: better:" in said
    assert "v3 (candidate)" in said
    rollback(NAME, *place)
    train("train.max_steps=30")
    assert "candidate v3 became the champion: better:" in capsys.readouterr().out

    # The rejected one has another champion to beat now; only that is done.
    again = to_run(config_path, "train.max_steps=2")
    assert again == ["champion", "evaluate-champion", "decide", "promote"]


def test_a_changed_gate_decides_again_and_trains_nothing(train, config_path):
    train()
    gate = ('registry.gates=[{"metric": "nll", "max_value": 0.001}]',)
    assert to_run(config_path, *gate) == ["decide", "promote"]
    assert to_run(config_path, "registry.promote=manual") == ["promote"]
    assert to_run(config_path, "registry.promote=never") == []
