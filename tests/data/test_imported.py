"""Rows of a function of the user's that does not only give rows."""

import pytest

from aligntune.config.data import Dataset
from aligntune.data.sources import check, read
from aligntune.errors import ConfigError, DataError

MODULE = """
import os, sys
def leaves():
    sys.exit(0)
def leaves_at_once():
    yield {}
    os._exit(0)
"""


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("leaving:leaves", DataError, "leaving:leaves failed: SystemExit: 0"),
        ("leaving:leaves_at_once", DataError, r"failed: SystemExit: os._exit\(0\)"),
        ("left:rows", ConfigError, r"left:rows cannot be imported: SystemExit: 0"),
    ],
)
def test_one_that_exits_fails(tmp_path, monkeypatch, name, kind, words):
    (tmp_path / "leaving.py").write_text(MODULE)
    (tmp_path / "left.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(kind, match=words):
        read(Dataset(name=name), "")


def test_a_package_that_exits_fails_before_a_run(tmp_path, monkeypatch):
    (tmp_path / "leaving_package").mkdir()
    (tmp_path / "leaving_package" / "__init__.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"leaving_package.rows:f cannot be imported: SystemExit"):
        check(Dataset(name="leaving_package.rows:f"))
