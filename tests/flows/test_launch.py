"""A training stage in a child process: told to stop with its parent, and never left behind."""

import signal

import pytest
from own_process import started
from waits import until, wait_for_checkpoint

from .conftest import CONFIG, trainers


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_to_the_parent_alone_stops_the_child_with_a_checkpoint(
    environment, tiny_model, tmp_path, number, code
):
    output, config = tmp_path / "output", tmp_path / "run.yaml"
    config.write_text(CONFIG.format(model=tiny_model, output=output, steps=5000))
    separate = ["--set", "launch.mode=process", "--set", "logging.push_to_hub=false"]
    process = started("aligntune", "train", "--config", config, *separate)
    wait_for_checkpoint(output, process)
    (child,) = trainers(process.pid)
    process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == code, said
    until(lambda: child not in trainers(process.pid), "the end of the trainer")
    steps = list((output / "stages").glob("sft-*.partial/work/checkpoints/step-*"))
    assert steps
    assert not [path for path in (output / "stages").glob("sft-*") if path.suffix != ".partial"]
