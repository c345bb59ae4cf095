"""A whole run on a tiny model: seconds instead of minutes, and nothing in it is faked."""

from functools import partial
from pathlib import Path

import pytest
from own_process import started

CONFIG = """
algo: dpo
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
sft:
  datasets: [{{name: "arithmetic:", params: {{count: 64, seed: 1}}}}]
  train: {{per_device_batch_size: 4, max_steps: 12, learning_rate: 1e-3}}
datasets: [{{name: "arithmetic:", params: {{count: 32, seed: 2}}}}]
train: {{per_device_batch_size: 4, max_steps: 4, learning_rate: 1e-4, beta: 0.1}}
evaluation:
  datasets: [{{name: "arithmetic:", split: test, params: {{count: 12, seed: 3}}}}]
  max_new_tokens: 8
  resamples: 200
registry: {{name: tiny}}
logging: {{output_dir: {output}, run_name: tiny, save_steps: 4}}
"""


@pytest.fixture
def write_config(tiny_model, tmp_path):
    """Writes the run's config with its output below a directory; returns the file."""

    def write(output: Path) -> Path:
        path = tmp_path / f"{output.name}.yaml"
        path.write_text(CONFIG.format(model=tiny_model, output=output))
        return path

    return write


@pytest.fixture
def aligntune():
    """Starts the command line in a process of its own."""
    return partial(started, "aligntune")
