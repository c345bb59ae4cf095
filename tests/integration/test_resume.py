"""Killed, terminated, started twice: the same command ends with the same weights."""

import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient
from waits import wait_for_checkpoint

from aligntune.digest import sha256

OK, RESUMABLE = 0, 75


def finish(process, code=OK):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


def weights(output: Path, stage: str) -> str:
    (path,) = [p for p in (output / "stages").glob(f"{stage}-*") if p.suffix != ".partial"]
    return sha256(path / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Where the uninterrupted run goes; made by the first test that needs it."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def uninterrupted(reference, write_config, aligntune):
    if not (reference / "runs" / "tiny" / "report.html").exists():
        finish(aligntune("train", "--config", write_config(reference)))
    return reference


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, RESUMABLE)]
)
def test_interrupted_in_sft_and_run_again_gives_the_same_weights_bit_for_bit(
    uninterrupted, write_config, aligntune, tmp_path, number, code
):
    output = tmp_path / "interrupted"
    config = write_config(output)
    # Slow enough that the signal arrives while steps are still to come.
    process = aligntune("train", "--config", config, "--set", "logging.save_steps=2")
    wait_for_checkpoint(output, process)
    process.send_signal(number)
    finish(process, code)
    assert not [p for p in (output / "stages").glob("sft-*") if p.suffix != ".partial"], (
        "sft finished before the signal; the test proves nothing"
    )
    finish(aligntune("train", "--config", config))
    for stage in ("sft", "dpo"):
        assert weights(output, stage) == weights(uninterrupted, stage)
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    where = [client.get_experiment_by_name("aligntune").experiment_id]
    # The second command had another config, so its run is another; the stage is the same.
    runs = client.search_runs(where, "tags.`aligntune.role` = 'pipeline'")
    ended = {run.info.status: run.info.run_id for run in runs}
    assert ended.keys() == {"KILLED", "FINISHED"}
    (sft,) = client.search_runs(where, "tags.`aligntune.stage` = 'sft'")
    assert sft.info.status == "FINISHED"
    assert sft.data.tags["mlflow.parentRunId"] == ended["FINISHED"]
    history = client.get_metric_history(sft.info.run_id, "train/loss")
    assert [point.step for point in history] == list(range(1, 13))


def test_two_processes_with_one_config_train_once_and_both_succeed(
    write_config, aligntune, tmp_path
):
    config = write_config(tmp_path / "both")
    first, second = (aligntune("train", "--config", config) for _ in range(2))
    outputs = [finish(first), finish(second)]
    for stage in ("sft", "dpo"):
        built = [output for output in outputs if _ran(output, stage)]
        assert len(built) == 1, outputs


def _ran(output: str, stage: str) -> bool:
    """Whether the final table says that this process ran the stage."""
    cells = [line.split() for line in output.splitlines()]
    return any(row[:1] == [stage] and "run" in row for row in cells)
