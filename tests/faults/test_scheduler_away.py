"""Prefect goes away for good in the middle of a training: the model is there all the same."""

import os
import subprocess
import sys
import time

import pytest
from prefect_server import prefect_server
from proxy import Proxy
from servers import until

from aligntune.artifacts import digest_of, records
from aligntune.journal import complete_lines

LARGE = int(os.environ.get("FAULT_POINTS", "0")) >= 200
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not LARGE, reason="minutes until Prefect's client gives up: make faults"),
]

CONFIG = """
algo: sft
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
datasets: [{{name: "arithmetic:", params: {{count: 64, seed: 1}}}}]
train: {{per_device_batch_size: 4, max_steps: 60, learning_rate: 1e-3}}
evaluation: {{max_new_tokens: 4, resamples: 100}}
logging: {{output_dir: {output}, run_name: tiny, save_steps: 20, loggers: none}}
"""


@pytest.fixture
def line(tmp_path):
    (tmp_path / "prefect").mkdir()
    with prefect_server(tmp_path / "prefect") as url, Proxy(int(url.split(":")[2][:-4])) as line:
        yield line


def run(verb, model, output, **environment):
    file = output.with_suffix(".yaml")
    file.write_text(CONFIG.format(model=model, output=output))
    with output.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "aligntune", verb, "--config", str(file)],
            stdout=log, stderr=log, env=os.environ | environment,
        )  # fmt: skip


def trained(output):
    (made,) = (output / "stages").glob("sft-*")
    assert (made / "manifest.json").is_file(), made.name
    return digest_of(records(made / "model"))


def test_prefect_away_for_good_costs_no_model(line, tiny_model, tmp_path):
    here, output = tmp_path / "here", tmp_path / "away"
    alone = run("train", tiny_model, here)
    assert alone.wait(900) == 0, here.with_suffix(".log").read_text()
    api = {"PREFECT_API_URL": f"{line.url}/api", "PREFECT_HOME": str(tmp_path / "home")}
    process = run("flow", tiny_model, output, **api)

    def steps():
        assert process.poll() is None, output.with_suffix(".log").read_text()
        return sum(len(complete_lines(p)) for p in output.glob("stages/sft-*/metrics.jsonl"))

    until(lambda: steps() >= 5, "five steps", 900)
    line.set("refuse")
    broken = time.monotonic()
    code = process.wait(900)
    took = time.monotonic() - broken
    said = output.with_suffix(".log").read_text()
    print(f"\nPrefect away for good: exit {code} after {took:.0f} s\n{said[-700:]}")  # noqa: T201
    assert "Traceback" not in said
    assert code in (0, 69), said
    assert trained(output) == trained(here)
    # Without Prefect the same command has nothing left to train.
    again = run("train", tiny_model, output)
    assert again.wait(900) == 0, output.with_suffix(".log").read_text()
    assert trained(output) == trained(here)
