"""A sweep under Prefect: a flow run per run, one that fails among them, and the best at the end."""

import json

import pytest

from aligntune.errors import DataError
from aligntune.sweep.choose import Choice

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_each_run_is_a_flow_run_below_the_sweep_and_a_failure_stops_none(
    prefect, config, output, tmp_path
):
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterParentFlowRunId,
    )

    from flows import sweep

    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text("".join(f'{{"prompt": "{n}", "completion": "b"}}\n' for n in range(8)))
    bad.write_text('{"prompt": "a", "completion": ""}\n' * 4)
    overrides = [
        f"datasets.0.name={good},{bad},arithmetic:", "datasets.0.params={}",
        "train.max_steps=2", "logging.run_name=swept", "datasets.0.max_samples=20",
    ]  # fmt: skip
    with pytest.raises(DataError, match="1 of 3 runs failed"):
        sweep.run([config], overrides, Choice(metric="exact_match"), "aligntune sweep")

    parent = next(run for run in prefect._ask(lambda c: c.read_flow_runs()) if run.name == "swept")
    assert parent.state.type.value == "FAILED"
    below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent.id]))
    found = prefect._ask(lambda client: client.read_flow_runs(flow_run_filter=below))
    told = json.loads((output / "sweeps" / "swept" / "sweep.json").read_text())
    states = {"finished": "COMPLETED", "failed": "FAILED"}
    expected = [(run["name"], states[run["state"]]) for run in told["runs"]]
    expected.append((told["best"], "COMPLETED"))
    assert sorted((run.name, run.state.type.value) for run in found) == sorted(expected)
    assert [run["state"] for run in told["runs"]] == ["finished", "failed", "finished"]
    assert (output / "runs" / told["best"] / "stages" / "register").exists()
