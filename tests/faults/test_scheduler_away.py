"""Prefect goes away for good in the middle of a training: the model is there all the same."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from prefect_server import prefect_server
from proxy import Proxy
from waits import until

from aligntune.artifacts import digest_of, records
from aligntune.journal import complete_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LONGEST_END = 60.0
"""Seconds that Prefect's absence may add to a run."""
CONFIG = """
algo: sft
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
datasets: [{{name: "arithmetic:", params: {{count: 64, seed: 1}}}}]
train: {{per_device_batch_size: 4, max_steps: 20, learning_rate: 1e-3}}
evaluation: {{max_new_tokens: 4, resamples: 100}}
logging: {{output_dir: {output}, run_name: tiny, save_steps: 5, loggers: none}}
"""


@pytest.fixture
def line(tmp_path):
    (tmp_path / "prefect").mkdir()
    with prefect_server(tmp_path / "prefect") as url, Proxy(int(url.split(":")[2][:-4])) as line:
        yield line


@contextmanager
def run(verb, model, output, **environment):
    file = output.with_suffix(".yaml")
    file.write_text(CONFIG.format(model=model, output=output))
    with output.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "aligntune", verb, "--config", str(file)],
            stdout=log, stderr=log, env=os.environ | environment,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(120)


def trained(output):
    (made,) = (output / "stages").glob("sft-*")
    assert (made / "manifest.json").is_file(), made.name
    return digest_of(records(made / "model"))


@pytest.fixture
def alone(tiny_model, tmp_path):
    """The same run without Prefect, which goes on meanwhile."""
    with run("train", tiny_model, tmp_path / "here") as process:
        yield process


def test_prefect_away_for_good_costs_no_stage_and_no_model(alone, line, tiny_model, tmp_path):
    here, output = tmp_path / "here", tmp_path / "away"
    api = {"PREFECT_API_URL": f"{line.url}/api", "PREFECT_HOME": str(tmp_path / "home")}
    with run("flow", tiny_model, output, **api) as process:
        cut(line, output, process)
    assert alone.wait(600) == 0, here.with_suffix(".log").read_text()
    assert trained(output) == trained(here)


def cut(line, output, process):
    """Cuts the line in the middle of the training, and looks at what becomes of the flow."""
    log = output.with_suffix(".log")

    def steps():
        assert process.poll() is None, log.read_text()
        return sum(len(complete_lines(p)) for p in output.glob("stages/sft-*/metrics.jsonl"))

    until(lambda: steps() >= 2, "two steps", 600)
    line.set("refuse")
    until((output / "runs" / "tiny" / "report.html").exists, "the report", 600)
    done = time.monotonic()
    code = process.wait(600)
    took, said = time.monotonic() - done, log.read_text()
    print(f"\nPrefect away for good: exit {code}, {took:.0f} s after the report\n{said[-900:]}")  # noqa: T201
    assert code == 0, said
    assert took < LONGEST_END
    assert "Prefect did not take an artifact" in said
    assert "Prefect was not told how this run ended" in said
    assert "Traceback" not in said
    assert "failed to process item" not in said
    stages = {path.name for path in (output / "runs" / "tiny" / "stages").iterdir()}
    assert {"sft", "evaluate-sft", "register", "promote"} <= stages
