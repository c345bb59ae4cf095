"""SFT and then an online algorithm, in one config, as a command and as a flow."""

import json

import pytest
from own_process import started

from aligntune.digest import sha256

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = """
algo: {algo}
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
sft:
  datasets: [{{name: "arithmetic:", params: {{count: 24, seed: 1}}}}]
  train: {{per_device_batch_size: 4, max_steps: 4, learning_rate: 1e-3}}
datasets: [{{name: "arithmetic:", params: {{count: 24, seed: 2}}}}]
rewards: [{{reward_type: length, params: {{min_length: 2, max_length: 2}}}}, {{reward_type: math}}]
train: {{per_device_batch_size: 8, max_steps: 3, max_completion_length: 8, learning_rate: 1e-3}}
evaluation:
  datasets: [{{name: "arithmetic:", split: test, params: {{count: 6, seed: 3}}}}]
  max_new_tokens: 4
  resamples: 100
registry: {{name: tiny-{algo}}}
logging: {{output_dir: {output}, run_name: tiny, save_steps: 2}}
"""


def finished(output, kind):
    """(what the stage's manifest says, the digest of its weights)."""
    (folder,) = (output / "stages").glob(f"{kind}-*")
    manifest = json.loads((folder / "manifest.json").read_text())
    return manifest, sha256(folder / "model" / "model.safetensors")


@pytest.mark.parametrize("algo", ["ppo", "grpo"])
def test_both_train_both_stages_to_the_same_weights(prefect, tiny_model, tmp_path, algo):
    found = []
    for name in ("train", "flow"):
        output, config = tmp_path / name, tmp_path / f"{name}.yaml"
        config.write_text(CONFIG.format(algo=algo, model=tiny_model, output=output))
        command = ["flows.post_train"] if name == "flow" else ["aligntune", "train"]
        process = started(*command, "--config", config)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        sft, tuned = finished(output, "sft")
        online, trained = finished(output, algo)
        assert online["inputs"]["model"] == f"sft-{sft['key']}"
        assert online["metrics"]["steps"] == 3
        assert trained != tuned
        found.append((sft["key"], tuned, online["key"], trained))
    assert found[0] == found[1]
