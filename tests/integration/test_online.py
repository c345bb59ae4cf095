"""Whole runs of online algorithms: rewards, a reward model, samples, curves, evaluation."""

import json

import pytest
import yaml
from mlflow import MlflowClient
from tiny import build_tiny_judge

from aligntune import shipped
from aligntune.config.algo import ONLINE

CONFIG = """
algo: grpo
model: {{name_or_path: {model}, reward_path: {judge}, precision: fp32, max_seq_length: 96}}
datasets: [{{name: "arithmetic:", params: {{count: 24, seed: 2}}}}]
rewards:
  - {{reward_type: length, weight: 0.5, params: {{min_length: 1, max_length: 20}}}}
  - {{reward_type: math}}
train: {{per_device_batch_size: 8, num_generations: 4, max_completion_length: 8, max_steps: 3,
         learning_rate: 1e-3}}
evaluation: {{heldout_fraction: 0.3, max_new_tokens: 8, resamples: 200}}
sample_logging: {{num_samples: 2, max_new_tokens: 4, interval_steps: 2}}
registry: {{name: tiny}}
logging: {{output_dir: {output}, run_name: tiny, save_steps: 2, eval_steps: 2}}
"""


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return build_tiny_judge(tmp_path_factory.mktemp("judge"), context=128)


def test_a_run_optimises_and_reports_its_rewards(
    aligntune, tiny_model, judge, tmp_path, monkeypatch
):
    output = tmp_path / "out"
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG.format(model=tiny_model, judge=judge, output=output))
    process = aligntune("train", "--config", config)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    (stage,) = output.glob("stages/grpo-*")
    curves = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    names = set().union(*(row["metrics"] for row in curves))
    assert {f"train/rewards/{name}/mean" for name in ("length", "math", "model")} <= names
    assert "eval/reward" in names
    samples = [json.loads(line) for line in (stage / "samples.jsonl").read_text().splitlines()]
    assert [row["step"] for row in samples] == [2, 2, 3, 3]
    assert {tuple(row["rewards"]) for row in samples} == {("length", "math", "model")}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{output / 'mlflow.db'}")
    table = MlflowClient().load_table("1", "samples.json")
    assert table["completion"].tolist() == [row["completion"] for row in samples]
    scores = [row["rewards"]["model"] for row in samples]
    assert table["rewards/model"].tolist() == pytest.approx(scores)
    assert list((stage / "tensorboard").iterdir())
    record = json.loads((stage / "manifest.json").read_text())
    assert record["metrics"]["steps"] == 3
    chosen = record["facts"]["choice"]
    assert chosen["own_sampler"]
    assert chosen["shared_prompts"]
    assert not chosen["generation_copy"]
    assert chosen["reasons"]["generation_copy"] == "model.precision is fp32"
    assert record["identity"]["sources"]["rewards[2]"].startswith("sha256:")
    evaluations = output.glob("stages/evaluate-*/evaluation.json")
    measured = [json.loads(path.read_text())["metrics"] for path in evaluations]
    assert len(measured) == 2
    for metrics in measured:
        assert {"rewards/length", "rewards/math", "rewards/model", "reward"} <= metrics.keys()
    assert (output / "runs" / "tiny" / "report.html").exists()


TINY = {
    "train.max_steps": 2,
    "sft.train.max_steps": 2,
    "reward_model.train.max_steps": 2,
    "evaluation.max_samples": 8,
    "evaluation.max_new_tokens": 4,
    "evaluation.resamples": 200,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in shipped.names() if not name.startswith(("guide", "quickstart"))]
)
def test_every_shipped_config_trains(aligntune, tiny_model, tmp_path, name):
    settings = yaml.safe_load(shipped.text(name))
    sections = settings.keys() | {"train", "evaluation"}
    changes = {key: value for key, value in TINY.items() if key.split(".")[0] in sections}
    if settings["algo"] in ONLINE:
        changes["train.max_completion_length"] = 8
    overrides = [f"--set={key}={value}" for key, value in changes.items()]
    process = aligntune(
        "train", "--config", shipped.FOLDER / f"{name}.yaml", "--model", tiny_model,
        "--output-dir", tmp_path / "out", *overrides,
    )  # fmt: skip
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    (record,) = (tmp_path / "out").glob(f"stages/{settings['algo']}-*/manifest.json")
    assert json.loads(record.read_text())["metrics"]["steps"] == 2
