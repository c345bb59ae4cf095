"""What `plan` says that training will need, from configs and files alone."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from rich.console import Console

from aligntune.cli import app

MODEL = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "vocab_size": 128_256,
    "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "tie_word_embeddings": True, "max_position_embeddings": 131_072,
}  # fmt: skip
"""Those of Llama-3.2-1B."""
PARAMETERS = 1_235_814_400
CONFIG = """
algo: dpo
model: {{name_or_path: {folder}/model, precision: bf16, max_seq_length: 512}}
sft:
  datasets: [{{name: "arithmetic:"}}]
  train: {{per_device_batch_size: 2, max_steps: 10}}
datasets: [{{name: "arithmetic:"}}]
train: {{per_device_batch_size: 2, num_epochs: 1}}
logging: {{output_dir: {folder}/out, run_name: tried}}
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(MODEL))
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(folder=tmp_path))
    return path


def planned(config, *arguments):
    done = CliRunner().invoke(app, ["plan", "--config", str(config), *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def record(config, *arguments):
    found = json.loads(planned(config, *arguments, "--json"))["training"]
    return {each["label"]: each for each in found}


def test_every_training_stage_has_its_memory_by_part_and_its_choices(config):
    sft, dpo = record(config).values()
    assert sft["memory"]["weights"] == sft["memory"]["gradients"] == 4 * PARAMETERS
    assert sft["memory"]["total"] > 12 * PARAMETERS
    assert dpo["label"] == "dpo"
    assert sft["device"]["kind"] in ("cpu", "gpu")
    assert set(sft["choice"]["reasons"]) >= {"gradient_checkpointing"}


def test_work_is_told_as_far_as_the_rows_are_known(config):
    sft, dpo = record(config).values()
    tokens = 10 * 2 * 512
    assert (sft["work"]["tokens"], sft["work"]["at_most"]) == (tokens, True)
    assert 6 * PARAMETERS < sft["work"]["flops"] / tokens < 10 * PARAMETERS
    assert dpo["work"] is None


def test_other_devices_are_asked_about_without_having_them(config):
    found = record(config, "--on", "8xRTX4090-24GB")["sft"]
    assert found["device"]["kind"] == "gpu"
    assert found["elsewhere"]["fsdp"] < found["elsewhere"]["zero2"] < found["elsewhere"]["ddp"]
    assert found["fits"] is (found["elsewhere"]["ddp"] < found["device"]["free"])
    assert found["seconds"] > 0
    said = planned(config, "--on", "8xRTX4090-24GB")
    assert "FSDP" in said
    assert "does not fit" in said


@pytest.mark.parametrize("width", [60, 160])
def test_no_heading_of_the_tables_is_broken(config, width, monkeypatch):
    monkeypatch.setattr("aligntune.show.screen", lambda: Console(width=width))
    assert {"activations", "optimizer", "gradients"} <= set(planned(config).split())


def test_a_stage_that_will_not_fit_gets_a_warning(config):
    assert "warning" in planned(config, "--on", "cpu-2GB")
    assert "warning" not in planned(config, "--on", "cpu-900GB")


def test_a_model_whose_dimensions_are_not_there_is_said_to_be_unknown(config, tmp_path):
    (tmp_path / "model" / "config.json").write_text("{}")
    assert "unknown until the model is there" in planned(config)
    assert record(config)["sft"]["memory"] is None


def test_an_unknown_device_is_one_sentence_with_what_to_write(config):
    done = subprocess.run(
        [sys.executable, "-m", "aligntune", "plan", "--config", config, "--on", "H100"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "8xH100-80GB" in done.stderr
