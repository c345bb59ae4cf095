"""MLflow told by a process that goes on when its command has ended."""

import os
import sys
import time

import pytest
from click.testing import CliRunner

from aligntune import afterwards
from aligntune.cli_sync import sync
from aligntune.outbox import Outbox


@pytest.fixture
def outbox(tmp_path):
    made = Outbox(tmp_path / "output")
    made.folder.mkdir(parents=True)
    return made


def test_files_of_the_working_directory_are_not_run(outbox, tmp_path, monkeypatch):
    place = tmp_path / "place"
    place.mkdir()
    for name in ("click", "aligntune"):
        (place / f"{name}.py").write_text(f"open({str(place / 'ran')!r}, 'w').close()")
    monkeypatch.chdir(place)
    afterwards.tell(outbox.root)
    done, end = outbox.folder / ".lock", time.monotonic() + 300
    while not done.exists() and not (place / "ran").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert done.exists()
    assert not (place / "ran").exists()


def test_what_did_not_arrive_the_last_time_is_said(outbox, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/bin/true")
    afterwards.tell(outbox.root)
    assert not caplog.records
    outbox.away.touch()
    afterwards.tell(outbox.root)
    assert f"aligntune sync --output-dir {outbox.root}" in caplog.text


def test_a_process_that_cannot_start_does_not_fail_the_run(outbox, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    afterwards.tell(outbox.root)
    assert "MLflow was not told" in caplog.text


@pytest.mark.parametrize("of", ["getpid", "getppid"])
def test_nothing_goes_on_after_the_only_process_of_a_container(of, monkeypatch):
    monkeypatch.setattr(os, of, lambda: 1)
    assert not afterwards.survives()


def test_an_outbox_that_was_removed_stays_so(tmp_path):
    done = CliRunner().invoke(sync, ["--output-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert not list(tmp_path.iterdir())
