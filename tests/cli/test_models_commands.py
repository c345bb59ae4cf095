"""`aligntune eval`, `models`, `promote` and `rollback` on a run of a tiny model."""

import json

import pytest
from mlflow import MlflowClient

from aligntune.show import difference_of

CONFIG = """
algo: sft
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
datasets: [{{name: "arithmetic:", params: {{count: 32, seed: 1}}}}]
train: {{per_device_batch_size: 4, max_steps: 8, learning_rate: 1e-3}}
evaluation:
  datasets: [{{name: {rows}}}]
  max_new_tokens: 4
  resamples: 200
registry: {{name: tiny, promote: manual}}
logging: {{output_dir: {output}, run_name: one}}
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("output") / "out"


@pytest.fixture
def config(tiny_model, output):
    path, rows = output.parent / "run.yaml", output.parent / "heldout.jsonl"
    lines = [{"prompt": f"What is {n} plus 30?", "completion": f"{n + 30}"} for n in range(24)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path.write_text(CONFIG.format(model=tiny_model, rows=rows, output=output))
    return path


@pytest.fixture
def finished(run, config, output):
    """The output of two runs: one waits for its promotion, two learned next to nothing."""
    if not (output / "runs" / "two").exists():
        assert run("train", "-c", config)[0] == 0
        idle = ("--run-name", "two", "--max-steps", "1", "--learning-rate", "1e-12")
        assert run("train", "-c", config, *idle)[0] == 0
    return output


@pytest.fixture
def aliases(finished):
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    return lambda: {
        alias: str(version)
        for alias, version in client.get_registered_model("tiny.policy").aliases.items()
    }


@pytest.mark.slow
def test_any_model_is_measured_on_a_configs_data(run, config, finished):
    answers = finished / "answers"
    before = set(answers.iterdir())
    code, out, err = run("eval", "--model", "one", "-c", config, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found) == ["base", "one"]
    nll = found["one"]["metrics"]["nll"]
    assert nll["low"] < nll["mean"] < nll["high"]
    assert nll["standard_error"] > 0
    assert nll["against"]["base"]["verdict"] == "better"
    assert found["one"]["metrics"]["kl_to_base"]["mean"] > 0
    assert set(answers.iterdir()) == before, "the run has its answers already"
    stages = set((finished / "stages").iterdir())
    code, out, err = run("eval", "--model", "one", "-c", config)
    assert code == 0, err
    assert set((finished / "stages").iterdir()) == stages, "the second time all is reused"
    (line,) = [line for line in out.splitlines() if line.startswith("nll ")]
    assert "better" in line
    assert f"{nll['mean']:.3f}" in line


@pytest.mark.slow
def test_a_registered_version_and_a_directory_are_measured_too(run, config, finished, tiny_model):
    name = "models:/tiny.policy/1"
    code, out, err = run(
        "eval", "--model", name, "--against", tiny_model, "-c", config, "--json"
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert list(found) == [str(tiny_model), name]
    assert found[name]["metrics"]["nll"]["against"]["model-1"]["verdict"] == "better"
    code, _, err = run("eval", "--model", "models:/tiny.policy@nobody", "-c", config)
    assert code == 78
    assert "is not in the model registry" in err


@pytest.mark.slow
def test_promotion_and_rollback_by_hand(run, finished, aliases):
    output = ("--output-dir", finished)
    assert aliases() == {"candidate": "2"}
    code, _, err = run("promote", "two", *output)
    assert code == 65
    assert "the evidence does not allow tiny.policy v2 (" in err
    code, out, _ = run("promote", "one", *output)
    assert (code, out) == (0, "tiny.policy v1 is the champion\n")
    code, _, err = run("promote", "--version", "2", *output)
    assert code == 65
    assert "compared with champion none, and the champion is v1 now" in err
    assert run("promote", "two", *output, "--force")[0] == 2
    code, out, _ = run("promote", "--version", "v2", *output, "--force", "--reason", "a test")
    assert out == "tiny.policy v2 is the champion, v1 is the previous one\n"
    code, out, _ = run("rollback", *output)
    assert out == "tiny.policy v1 is the champion again, v2 is the previous one\n"
    assert aliases() == {"candidate": "2", "champion": "1", "previous": "2"}
    code, out, _ = run("models", *output)
    assert "champion" in next(line for line in out.splitlines() if line.startswith("v1"))
    code, out, _ = run("models", *output, "--json")
    (model,) = json.loads(out)
    assert model["versions"][0]["decision"] == "promote"
    assert model["versions"][1]["aliases"] == ["candidate", "previous"]
    assert "nll" in model["versions"][0]["metrics"]


def test_what_is_not_there_is_said(run, tmp_path):
    code, _, err = run("models", "--output-dir", tmp_path)
    assert code == 65
    assert "there is no registry at sqlite:///" in err
    assert run("promote", "--output-dir", tmp_path)[0] == 2
    assert run("promote", "x", "--output-dir", tmp_path)[0] == 65


def test_an_empty_registry_is_said_to_be_empty(run, tmp_path):
    MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_registered_models()
    code, out, _ = run("models", "--output-dir", tmp_path)
    assert (code, out) == (0, "nothing is registered yet; a run registers what it trains\n")
    assert run("models", "--output-dir", tmp_path, "--json")[1] == "[]\n"


def test_a_run_that_is_misspelled_is_not_looked_for_on_the_hub(run, config, tmp_path):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    code, _, err = run("eval", "--model", "frist", "-c", config, "--output-dir", tmp_path)
    assert code == 78
    assert "unknown run 'frist'; did you mean 'first'?" in err


def test_a_metric_that_only_describes_a_model_is_not_called_worse():
    against = {"difference": 0.1, "low": 0.05, "high": 0.2, "verdict": "worse"}
    found = {"unit": "nats", "diagnostic": True, "against": {"base": against}}
    assert difference_of(found, "base").endswith(" differs")
    assert difference_of(found | {"diagnostic": False}, "base").endswith(" worse")
