"""Artifacts exist only when whole, and one process builds each."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from aligntune.artifacts import (
    MANIFEST,
    Manifest,
    commit,
    find,
    key_of,
    lock,
    partial,
    staged,
    write_atomic,
)


def manifest(key="0123456789ab", **changes):
    fields = {
        "kind": "data",
        "key": key,
        "identity": {"a": 1},
        "inputs": {},
        "environment": {},
        "metrics": {"rows": 3.0},
        "started": "then",
        "finished": "now",
        "seconds": 1.0,
        "files": {},
    }
    return Manifest(**fields | changes)


@pytest.fixture
def built(tmp_path):
    out = partial(tmp_path, "data", "0123456789ab")
    (out / "rows").mkdir()
    (out / "rows" / "train.txt").write_text("three rows")
    (out / "work" / "scratch").write_text("not kept")
    return commit(out, manifest())


def test_a_committed_artifact_is_found_with_its_files(tmp_path, built):
    found = find(tmp_path, "data", "0123456789ab", verify=True)
    assert found.path == tmp_path / "data-0123456789ab"
    assert found.manifest.files["rows/train.txt"].size == len("three rows")
    assert not (found.path / "work").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_what_is_being_built_is_not_found(tmp_path):
    partial(tmp_path, "data", "0123456789ab")
    assert find(tmp_path, "data", "0123456789ab") is None


@pytest.mark.parametrize("damage", ["missing", "short", "no manifest", "torn manifest"])
def test_a_damaged_artifact_counts_as_absent(tmp_path, built, damage):
    file = built.path / "rows" / "train.txt"
    if damage == "missing":
        file.unlink()
    elif damage == "short":
        file.write_text("three")
    elif damage == "no manifest":
        (built.path / MANIFEST).unlink()
    else:
        (built.path / MANIFEST).write_text((built.path / MANIFEST).read_text()[:50])
    assert find(tmp_path, "data", "0123456789ab") is None


def test_a_flipped_bit_is_found_when_verified(tmp_path, built):
    (built.path / "rows" / "train.txt").write_text("three bows")
    assert find(tmp_path, "data", "0123456789ab", verify=True) is None


def test_building_again_keeps_the_damaged_one_aside(tmp_path, built):
    (built.path / "rows" / "train.txt").unlink()
    commit(partial(tmp_path, "data", "0123456789ab"), manifest())
    assert find(tmp_path, "data", "0123456789ab")
    assert (tmp_path / "data-0123456789ab.bad").is_dir()


def killed_while_replacing(path):
    with staged(path) as staging:
        staging.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def left(tmp_path):
    """A file that was being replaced when the process was killed."""
    out = partial(tmp_path, "data", "0123456789ab")
    path = out / "rows.json"
    path.write_text("old")
    process = multiprocessing.get_context("spawn").Process(
        target=killed_while_replacing, args=(path,)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(list(out.glob(".rows.json.*"))) == 1
    return path


def test_what_a_kill_left_half_written_does_not_get_into_the_artifact(tmp_path, left):
    built = commit(partial(tmp_path, "data", "0123456789ab"), manifest())
    assert built.manifest.files.keys() == {"rows.json"}
    assert sorted(path.name for path in built.path.iterdir()) == ["manifest.json", "rows.json"]
    assert (built.path / "rows.json").read_text() == "old"


def test_what_a_kill_left_half_written_goes_with_the_next_writing(left):
    (left.parent / ".other.json.host.1.new").write_text("another's")
    write_atomic(left, "new")
    assert left.read_text() == "new"
    assert not list(left.parent.glob(".rows.json.*"))
    assert (left.parent / ".other.json.host.1.new").exists()


def test_what_cannot_be_written_leaves_the_old_and_nothing_else(tmp_path):
    path = tmp_path / "rows.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert [file.name for file in tmp_path.iterdir()] == ["rows.json"]
    assert path.read_text() == "old"


def test_a_key_depends_on_values_and_not_on_their_order():
    assert key_of({"a": 1, "b": [1.5, None]}) == key_of({"b": [1.5, None], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    assert len(key_of({})) == 12


def test_a_manifest_survives_json(built):
    text = built.manifest.model_dump_json()
    assert Manifest.model_validate_json(text) == built.manifest
    assert json.loads((built.path / MANIFEST).read_text())["kind"] == "data"


def hold(root, seconds, ready):
    with lock(root, "data", "k", lambda: None):
        ready.set()
        time.sleep(seconds)


@pytest.fixture
def holder(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, 60, ready))
    process.start()
    assert ready.wait(30)
    yield process
    process.kill()
    process.join()


def test_a_lock_dies_with_its_holder(tmp_path, holder):
    waited = []

    def kill_the_holder():
        waited.append(True)
        holder.kill()

    with lock(tmp_path, "data", "k", kill_the_holder):
        pass
    assert waited
