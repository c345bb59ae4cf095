"""A person is asked once about a decision, and again where the question was lost."""

import asyncio

import pytest

from aligntune.config.load import load
from aligntune.retraining import look

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CONFIG = """
algo: sft
model: {{name_or_path: {model}}}
datasets: [{{name: "arithmetic:", params: {{count: 9, seed: 1}}}}]
registry: {{name: tiny}}
retrain: {{approval: required}}
logging: {{output_dir: {folder}/output}}
"""


def test_a_question_is_asked_once_and_again_only_where_it_was_lost(
    prefect, tiny_model, tmp_path, monkeypatch
):
    from prefect.states import Cancelled

    from flows.approval import promotion
    from flows.ending import Ending
    from flows.retrain import _ask

    promotion.to_deployment("nightly-approval").apply()
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", "nightly")
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(model=tiny_model, folder=tmp_path))
    looked = look(load([path], ()))
    waits = Ending("waiting", "better", "nightly", model="tiny.policy", version="3")

    def ask(flow_run):
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", flow_run)
        asyncio.run(_ask(waits, looked, [str(path)], ()))
        return {run.id for run in prefect._ask(lambda client: client.read_flow_runs())}

    (first,) = ask("night-1")
    assert ask("night-2") == {first}
    lost = Cancelled(message="by mistake")
    prefect._ask(lambda client: client.set_flow_run_state(first, lost, force=True))
    assert len(ask("night-3")) == 2
    assert len(ask("night-3")) == 2
