"""The newest checkpoint that verifies is the one to continue from, whatever its name or time."""

import os

import pytest

from aligntune.train import checkpoints
from aligntune.train.checkpoints import best, commit, newest, steps

FILES = (
    "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"
)  # fmt: skip


def write(tmp_path, step, keep=5, files=FILES, **facts):
    written = tmp_path / "trainer" / f"checkpoint-{step}"
    written.mkdir(parents=True)
    for name in (*files, "training_args.bin"):
        (written / name).write_bytes(f"{name} of step {step}".encode())
    folder = tmp_path / "checkpoints"
    return commit(written, folder, step=step, key="k", keep=keep, **facts)


@pytest.fixture
def folder(tmp_path):
    for step in (20, 40, 100):
        write(tmp_path, step)
    return tmp_path / "checkpoints"


def test_the_newest_step_is_used(folder):
    assert newest(folder, key="k").name == "step-000100"


def test_file_times_do_not_matter(folder):
    os.utime(folder / "step-000020", (4e9, 4e9))
    os.utime(folder / "step-000100", (0, 0))
    assert newest(folder, key="k").name == "step-000100"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "flipped"])
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_used(folder, name, damage):
    file = folder / "step-000100" / name
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "half":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[3] ^= 1
        file.write_bytes(content)
    assert newest(folder, key="k").name == "step-000040"
    assert (folder / "quarantine" / "step-000100").is_dir()


@pytest.mark.parametrize("name", FILES[1:])
def test_one_that_was_written_without_a_state_is_not_continued(folder, tmp_path, name):
    write(tmp_path, 200, files=[other for other in FILES if other != name])
    assert newest(folder, key="k").name == "step-000100"


def test_a_folder_without_a_manifest_is_not_a_checkpoint(folder):
    (folder / "step-000900").mkdir()
    assert newest(folder, key="k").name == "step-000100"


def test_a_checkpoint_of_another_stage_is_not_continued(folder):
    assert newest(folder, key="other") is None


def test_one_of_another_stage_is_refused_with_what_differs(folder, tmp_path, caplog):
    parts = {
        "config": {"train": {"learning_rate": 1e-3, "beta": 0.1}},
        "inputs": {"data": "data-a"},
    }
    write(tmp_path, 200, identity=parts)
    other = {
        "config": {"train": {"learning_rate": 1e-4, "beta": 0.1}},
        "inputs": {"data": "data-b"},
    }
    assert newest(folder, key="other", identity=other) is None
    assert "it belongs to stage key k, of another train.learning_rate, data" in caplog.text


def test_every_bit_of_a_manifest_counts(tmp_path):
    write(tmp_path, 20, eval_loss=1.5, identity={"config": {"seed": 4}})
    path = tmp_path / "checkpoints" / "step-000020" / "manifest.json"
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        assert checkpoints._problem(path.parent, "k"), place
    path.write_bytes(whole)
    assert checkpoints._problem(path.parent, "k") is None


def test_one_that_was_renamed_is_not_continued(folder):
    (folder / "step-000100").rename(folder / "step-000120")
    assert newest(folder, key="k").name == "step-000040"


def test_only_the_newest_are_kept_by_step(tmp_path):
    for step in (5, 10, 15, 100):
        write(tmp_path, step, keep=2)
    assert steps(tmp_path / "checkpoints") == [15, 100]


def test_the_pickle_with_the_token_is_never_kept(folder):
    assert not list(folder.rglob("training_args.bin"))


def test_nothing_to_continue_from(tmp_path):
    assert newest(tmp_path, key="k") is None


def test_the_best_is_kept_beside_the_newest(tmp_path):
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 2.5), (50, None)):
        write(tmp_path, step, keep=2, eval_loss=loss)
    folder = tmp_path / "checkpoints"
    assert steps(folder) == [20, 40, 50]
    assert best(folder).name == "step-000020"


def test_the_newest_healthy_one_is_kept_beside_the_newest(tmp_path):
    for step, healthy in ((10, True), (20, True), (30, False), (40, False), (50, False)):
        write(tmp_path, step, keep=2, healthy=healthy)
    assert steps(tmp_path / "checkpoints") == [20, 40, 50]
    write(tmp_path, 60, keep=2)
    assert steps(tmp_path / "checkpoints") == [50, 60]


def test_nothing_measured_has_no_best(folder):
    assert best(folder) is None
