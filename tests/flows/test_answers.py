"""What an answer does to a candidate, on a real registry and without a Prefect server."""

import asyncio

import pytest
from mlflow import MlflowClient

from aligntune import registry
from aligntune.config.load import load

CONFIG = """
algo: sft
model: {name_or_path: owner/model}
datasets: [{name: owner/rows}]
registry: {name: tiny}
retrain: {approval: required}
"""


@pytest.fixture
def client(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = MlflowClient(uri, uri)
    found.create_registered_model("tiny.policy")
    found.create_model_version("tiny.policy", source="x", tags={registry.KEY: "k"})
    return found


def test_a_refusal_of_what_was_promoted_meanwhile_says_that_it_is_the_champion(client, tmp_path):
    from flows.approval import Approval, _answered

    (tmp_path / "run.yaml").write_text(CONFIG)
    config = load([tmp_path / "run.yaml"], [f"logging.output_dir={tmp_path}"])
    no = Approval(approve=False, by="Ada", reason="too terse")
    said = asyncio.run(_answered(no, config, "tiny.policy", "1", ""))
    assert said.why == "v1 was not promoted: refused by Ada: too terse"
    client.set_registered_model_alias("tiny.policy", "champion", "1")
    said = asyncio.run(_answered(no, config, "tiny.policy", "1", ""))
    assert said.outcome == "refused"
    assert "v1 was made champion before that; `aligntune rollback`" in said.why
