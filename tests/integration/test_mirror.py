"""A mirror map that is learned by a command, in runs that are parts of runs like any other."""

import json

import pytest
import torch
from safetensors.torch import load_file

from aligntune.losses.mirror import flat, mirror

pytestmark = pytest.mark.slow

CONFIG = """
algo: gbmpo
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
datasets: [{{name: "arithmetic:", params: {{count: 24, seed: 2}}}}]
rewards: [{{reward_type: length, params: {{min_length: 20, max_length: 40}}}}]
train: {{per_device_batch_size: 8, num_generations: 4, max_completion_length: 8,
         learning_rate: 1e-2, gbmpo: {{divergence: neural, coefficient: 1e5}}}}
evaluation:
  datasets: [{{name: "arithmetic:", split: test, task_type: conversation,
               params: {{count: 8, seed: 3}}}}]
  metrics: [nll]
  resamples: 200
logging: {{output_dir: {output}, run_name: tiny}}
"""


@pytest.fixture
def learn(aligntune, tiny_model, tmp_path):
    def learn(name, *arguments, expected=0):
        config = tmp_path / f"{name}.yaml"
        config.write_text(CONFIG.format(model=tiny_model, output=tmp_path / name))
        process = aligntune(
            "mirror", "--config", config, "--members=2", "--steps=3", "--rate=0.5", *arguments
        )
        said, _ = process.communicate(timeout=600)
        assert process.returncode == expected, said
        return tmp_path / name, said

    return learn


def test_a_map_is_learned_and_more_rounds_go_on_from_those_that_are_done(learn):
    whole, _ = learn("whole", "--metric=nll", "--rounds=2")
    halved, _ = learn("halved", "--metric=nll", "--rounds=1")
    done = {path.name for path in halved.glob("stages/gbmpo-*")}
    assert len(done) == 4
    learn("halved", "--metric=nll", "--rounds=2")
    assert done < {path.name for path in halved.glob("stages/gbmpo-*")}
    found = []
    for folder in (whole, halved):
        learned = load_file(folder / "mirrors" / "tiny" / "mirror.safetensors")["parameters"]
        rows = (folder / "mirrors" / "tiny" / "history.jsonl").read_text().splitlines()
        found.append((learned, list(map(json.loads, rows))))
    (learned, rows), (again, same) = found
    assert torch.equal(learned, again)
    assert rows == same
    assert not torch.equal(learned, flat(mirror(42)))
    assert rows[1]["least"] < rows[1]["most"] < 0
    assert rows[1]["moved"]


def test_a_metric_that_is_not_measured_is_named(learn):
    _, said = learn("out", "--metric=nlll", "--rounds=1", expected=78)
    assert "did you mean 'nll'?" in said
    _, said = learn("out", "--set=train.gbmpo.divergence=kl", expected=78)
    assert "set both" in said
