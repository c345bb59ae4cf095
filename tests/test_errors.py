"""What a message never has in it."""

import errno
import logging
import pickle
import shutil

import pytest

from aligntune.console import Safe
from aligntune.errors import AlignTuneError, ResourceError, ServiceError, no_room, public, reason


@pytest.mark.parametrize("kind", [AlignTuneError, ServiceError, ResourceError])
def test_no_error_shows_the_password_of_a_url(kind):
    error = kind("no answer from http://me:se@cret@host:5000/a@b and s3://key:x@bucket/y")
    assert str(error) == "no answer from http://host:5000/a@b and s3://bucket/y"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("text", ["me@host", "https://host/a@b", "git@host:x.git", "a://b c@d"])
def test_other_texts_stay(text):
    assert public(text) == text


def test_no_line_of_a_log_moves_the_cursor_or_shows_a_password():
    said = "answer \x1b[2J\x00\x9b \u202e\nfrom %s"
    record = logging.LogRecord("x", logging.INFO, "", 0, said, ("http://a:b@h/",), None)
    assert Safe().filter(record)
    assert record.getMessage() == "answer \\x1b[2J\\x00\\x9b \\u202e\nfrom http://h/"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        Exception("No space left on device (os error 28)"),  # tokenizers
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
)
def test_a_full_disk_is_known_whoever_wrote(error):
    """As each library says it on a disk that is full; tests/faults has such disks."""
    assert no_room(error)


def test_a_directory_that_could_not_be_copied_is_a_full_disk_in_a_line(tmp_path):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", target)

    for name in ("a", "b"):
        (tmp_path / "from").mkdir(exist_ok=True)
        (tmp_path / "from" / name).touch()
    with pytest.raises(shutil.Error) as caught:
        shutil.copytree(tmp_path / "from", tmp_path / "to", copy_function=full)
    assert no_room(caught.value)
    assert reason(caught.value).startswith("[Errno 28] No space left on device: '/")
    assert not no_room(shutil.Error([("a", "b", "[Errno 2] No such file or directory: 'a'")]))


def test_other_errors_are_not_a_full_disk():
    assert not no_room(FileNotFoundError(2, "No such file"))
    assert not no_room(RuntimeError("size mismatch, unexpected position"))
