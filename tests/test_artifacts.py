"""Artifacts exist only when whole, and one process builds each."""

import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

from aligntune.artifacts import (
    LINKED,
    MANIFEST,
    Manifest,
    commit,
    committed,
    find,
    key_of,
    linked,
    lock,
    make_folder,
    partial,
    records,
    seal,
    staged,
    write_atomic,
)
from aligntune.errors import ResourceError


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


def test_threads_that_write_the_same_file_are_not_in_each_others_way(tmp_path):
    path = tmp_path / "shared.json"
    with staged(path) as mine:
        mine.write_text("mine")
        writer = threading.Thread(target=write_atomic, args=(path, "another's"))
        writer.start()
        writer.join()
        assert path.read_text() == "another's"
        assert mine.read_text() == "mine"
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["shared.json"]


def test_what_a_kill_left_half_written_goes_with_the_next_writing(left):
    (left.parent / ".other.json.host.1.new").write_text("another's")
    write_atomic(left, "new")
    assert left.read_text() == "new"
    assert not list(left.parent.glob(".rows.json.*"))
    assert (left.parent / ".other.json.host.1.new").exists()


@pytest.mark.parametrize("place", ["/proc/none", "{here}/file", "{here}/file/none"])
def test_a_directory_that_cannot_be_is_a_resource_error(tmp_path, place):
    (tmp_path / "file").touch()
    folder = Path(place.format(here=tmp_path)) / "stages"
    with pytest.raises(ResourceError, match=r"/stages cannot be made: \w+.*choose another"):
        make_folder(folder)


def test_what_cannot_be_written_leaves_the_old_and_nothing_else(tmp_path):
    path = tmp_path / "rows.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert [file.name for file in tmp_path.iterdir()] == ["rows.json"]
    assert path.read_text() == "old"


def test_one_that_was_killed_before_it_got_its_name_gets_it_from_the_next(tmp_path, monkeypatch):
    out = partial(tmp_path, "data", "0123456789ab")
    (out / "rows.txt").write_text("three rows")
    (out / "work" / "scratch").write_text("not lost yet")
    with monkeypatch.context() as patch:
        patch.setattr("aligntune.artifacts._name", interrupted)
        with pytest.raises(KeyboardInterrupt):
            commit(out, manifest())
    assert (out / "work" / "scratch").exists()
    assert find(tmp_path, "data", "0123456789ab") is None
    assert committed(tmp_path, "data", "0123456789ab").manifest.files.keys() == {"rows.txt"}
    assert not (find(tmp_path, "data", "0123456789ab").path / "work").exists()
    assert not out.exists()
    assert committed(tmp_path, "data", "0123456789ab") is None


def interrupted(*_):
    raise KeyboardInterrupt


def test_one_that_has_its_manifest_and_is_damaged_is_built_again(tmp_path):
    out = partial(tmp_path, "data", "0123456789ab")
    (out / "rows.txt").write_text("three rows")
    seal(out, MANIFEST, manifest(files=records(out)).model_dump_json())
    (out / "rows.txt").write_text("three bows")
    assert committed(tmp_path, "data", "0123456789ab") is None
    assert [path.name for path in sorted(out.iterdir())] == ["rows.txt", "work"]


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


def weights(path, size=LINKED):
    path.write_bytes(b"w" * size)
    return path


def test_weights_get_a_second_name_and_are_read_only_under_both(tmp_path):
    source, target = weights(tmp_path / "source"), tmp_path / "target"
    target.write_text("what was there before")
    linked(source, target)
    assert target.samefile(source)
    assert source.stat().st_mode & 0o222 == 0


def test_what_a_link_replaces_is_not_written_to_under_its_other_name(tmp_path):
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second", LINKED + 1)
    small = weights(tmp_path / "small", 10)
    linked(first, tmp_path / "target")
    linked(second, tmp_path / "target")
    assert first.stat().st_size == LINKED
    linked(small, tmp_path / "target")
    assert second.stat().st_size == LINKED + 1
    assert (tmp_path / "target").stat().st_size == 10


def test_small_files_are_copied(tmp_path):
    source, target = weights(tmp_path / "config.json", LINKED - 1), tmp_path / "target"
    linked(source, target)
    target.write_text("edited by hand")
    assert source.stat().st_size == LINKED - 1


def test_weights_are_copied_to_another_disk(tmp_path):
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one disk only")
    source = weights(tmp_path / "source")
    with tempfile.TemporaryDirectory(dir=shared) as other:
        target = Path(other) / "target"
        linked(source, target)
        assert target.read_bytes() == source.read_bytes()


def test_a_stage_that_is_built_again_does_not_change_what_its_files_were_linked_to(tmp_path):
    def built(content):
        out = partial(tmp_path, "sft", "k")
        (out / "model").mkdir()
        weights(out / "model" / "model.safetensors").write_bytes(content * LINKED)
        return commit(out, manifest(kind="sft", key="k"))

    kept = tmp_path / "kept"
    first = built(b"1").path / "model" / "model.safetensors"
    linked(first, kept)
    built(b"2")
    assert kept.read_bytes() == b"1" * LINKED
    assert first.read_bytes() == b"2" * LINKED
