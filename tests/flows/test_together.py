"""SFT and the reward model at the same time: where, and that both come out as they do alone."""

import pytest

from aligntune.config.load import load
from aligntune.config.logging import Launch
from aligntune.models.precision import gpus
from aligntune.plan import plan

CONFIG = """
algo: ppo
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
sft:
  datasets: [{{name: "arithmetic:", params: {{count: 32, seed: 1}}}}]
  train: {{per_device_batch_size: 4, max_steps: 4, learning_rate: 1e-3}}
reward_model:
  datasets: [{{name: "arithmetic:", eval_fraction: 0.25, params: {{count: 32, seed: 5}}}}]
  train: {{per_device_batch_size: 4, max_steps: 4, learning_rate: 1e-3}}
datasets: [{{name: "arithmetic:", params: {{count: 16, seed: 2}}}}]
train: {{per_device_batch_size: 8, max_completion_length: 8, max_steps: 1, learning_rate: 1e-4}}
evaluation:
  datasets: [{{name: "arithmetic:", split: test, params: {{count: 6, seed: 3}}}}]
  max_new_tokens: 4
  resamples: 100
registry: {{name: tiny}}
launch: {{concurrent: true}}
logging: {{output_dir: {output}, run_name: rlhf}}
"""


@pytest.fixture
def config(tiny_model, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(model=tiny_model, output=tmp_path / "out"))
    return path


@pytest.mark.parametrize(
    ("concurrent", "processes", "devices", "own"),
    [
        (None, 1, [], None),
        (None, 1, ["0"], None),
        (None, 1, ["0", "1"], ["0", "1"]),
        (None, 2, ["0", "1"], None),
        (None, 2, ["4", "5", "6", "7"], ["4,5", "6,7"]),
        (True, 1, [], [None, None]),
        (False, 1, ["0", "1"], None),
    ],
)
def test_they_go_together_where_there_is_room_or_the_config_says_so(
    config, concurrent, processes, devices, own
):
    from flows.together import rounds

    launch = Launch(concurrent=concurrent, processes=processes)
    found = rounds(plan(load([config])).stages, launch, devices)
    pairs = [each for each in found if len(each) > 1]
    assert sum(map(len, found)) == len(plan(load([config])).stages)
    assert len(pairs) == (own is not None)
    for pair in pairs:
        assert [entry.stage.label for entry, _ in pair] == ["sft", "reward"]
        assert [variables.get("CUDA_VISIBLE_DEVICES") for _, variables in pair] == own


def test_gpus_are_those_that_are_visible(tmp_path, monkeypatch):
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus(tmp_path) == ["0", "2", "10"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,10")
    assert gpus(tmp_path) == ["2", "10"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_are_trained_at_the_same_time(prefect, config, tmp_path):
    from flows.post_train import run

    run([config], [], "rlhf")
    tasks = prefect.tasks(prefect.latest())
    assert {task.state.name for task in tasks.values()} == {"Completed"}
    sft, reward = tasks["sft"], tasks["reward"]
    assert max(sft.start_time, reward.start_time) < min(sft.end_time, reward.end_time)
    assert (tmp_path / "out" / "runs" / "rlhf" / "stages" / "reward" / "model").is_dir()
