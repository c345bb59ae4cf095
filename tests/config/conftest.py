"""Config files, written where a test runs."""

import pytest


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file and gives its relative path, so that messages are short."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="run.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path.relative_to(tmp_path)

    return write
