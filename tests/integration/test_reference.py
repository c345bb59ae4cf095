"""The stage that computes what DPO's reference makes of the pairs, as part of a run."""

import json
import signal

import pytest
from waits import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CONFIG = """
algo: dpo
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
datasets: [{{name: "arithmetic:", params: {{count: 3000, seed: 2}}}}]
train: {{max_steps: 2, precompute_ref_log_probs: true}}
evaluation:
  datasets: [{{name: "arithmetic:", split: test, params: {{count: 4, seed: 3}}}}]
  metrics: [preference_accuracy]
  max_new_tokens: 2
  resamples: 200
registry: {{enabled: false}}
logging: {{output_dir: {output}, run_name: tiny}}
"""


def test_it_is_stopped_gone_on_with_and_shared(aligntune, tiny_model, tmp_path):
    output, config = tmp_path / "output", tmp_path / "run.yaml"
    config.write_text(CONFIG.format(model=tiny_model, output=output))
    command = ("train", "--config", config)
    process = aligntune(*command)
    until(lambda: written(output), "a batch of the reference", 400, process)
    found = written(output)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 75, said
    assert "of reference log-probabilities; the same command goes on from there" in said
    (file,) = (output / "stages").glob("reference-*.partial/work/reference/0.jsonl")
    kept = file.read_bytes()
    assert kept.startswith(found[:100])

    again = aligntune(*command)
    said, _ = again.communicate(timeout=400)
    assert again.returncode == 0, said
    (made,) = (output / "stages").glob("reference-*")
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["metrics"]["rows_train"] == 3000
    assert set(manifest["files"]) == {"train.parquet"}

    other = ("--set", "train.beta=0.5", "--set", "train.max_steps=3", "--json")
    planned, _ = aligntune("plan", *command[1:], *other).communicate(timeout=400)
    reused = {stage["label"]: stage["reuse"] for stage in json.loads(planned)["stages"]}
    assert (reused["reference"], reused["dpo"]) == (True, False)


def written(output):
    """What there is of the log-probabilities, once there is a batch of them."""
    files = list((output / "stages").glob("reference-*.partial/work/reference/0.jsonl"))
    text = files[0].read_bytes() if files else b""
    return text if b"\n" in text else b""
