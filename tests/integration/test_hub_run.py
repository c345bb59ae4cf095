"""A run whose model and data come from a hub, over real HTTP, under the names a config gives."""

import json

import pytest
from loopback_hub import LoopbackHub

from aligntune.data.rows import read_rows

CONFIG = """
algo: dpo
model: {{name_or_path: microsoft/DialoGPT-tiny, precision: fp32, max_seq_length: 128}}
datasets:
  - name: "Anthropic/hh-rlhf"
    max_samples: 24
train: {{max_steps: 2, learning_rate: 1e-6, per_device_batch_size: 2, beta: 0.1}}
evaluation: {{heldout_fraction: 0.25, max_new_tokens: 4, resamples: 100}}
logging: {{output_dir: {output}, run_name: hub}}
"""


@pytest.fixture
def root(tmp_path, tiny_model):
    (tmp_path / "root" / "models" / "microsoft").mkdir(parents=True)
    (tmp_path / "root" / "models" / "microsoft" / "DialoGPT-tiny").symlink_to(tiny_model)
    data = tmp_path / "root" / "datasets" / "Anthropic" / "hh-rlhf"
    data.mkdir(parents=True)
    start = "\n\nHuman: Hi, {0}\n\nAssistant: Hello\n\nHuman: What is {0}?\n\nAssistant:"
    rows = [
        {"chosen": start.format(i) + f" {i} is nice.", "rejected": start.format(i) + " No."}
        for i in range(40)
    ]
    (data / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "root"


def test_a_run_pins_the_commits_it_fetched_and_survives_a_busy_hub(root, aligntune, tmp_path):
    config = tmp_path / "hub.yaml"
    config.write_text(CONFIG.format(output=tmp_path / "out"))
    with LoopbackHub(root) as hub:
        hub.fail(503, path="/api/", times=1)
        environment = hub.env(tmp_path)
        process = aligntune("train", "--config", config, **environment)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert hub.requests
        process = aligntune("train", "--config", config, **environment)
        said, _ = process.communicate(timeout=300)
        assert "everything was reused" in said
    (data,) = (tmp_path / "out" / "stages").glob("data-*/manifest.json")
    manifest = json.loads(data.read_text())
    (source,) = manifest["identity"]["sources"].values()
    assert source.startswith("commit:")
    assert len(source) == len("commit:") + 40
    rows = manifest["metrics"]
    assert rows["rows_train"] + rows["rows_heldout"] == 24
    row = read_rows(data.parent / "train.parquet")[0]
    assert [turn["role"] for turn in row["prompt"]] == ["user", "assistant", "user"]
