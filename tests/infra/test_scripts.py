"""The scripts of infra/: what a shell linter says, secrets on disk, and what they refuse."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from local import free_ports

INFRA = Path(__file__).parents[2] / "infra"
SHELLCHECK = shutil.which("shellcheck")


def run(*command, **variables):
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHON": sys.executable} | variables,
    )  # fmt: skip


@pytest.mark.skipif(SHELLCHECK is None, reason="needs shellcheck: apt-get install shellcheck")
def test_a_shell_linter_finds_nothing():
    said = run(SHELLCHECK, *sorted(INFRA.glob("*.sh")))
    assert (said.returncode, said.stdout) == (0, "")


def test_secrets_are_for_their_owner_only_and_are_kept(tmp_path):
    def made():
        assert run(INFRA / "secrets.sh", tmp_path / "secrets").returncode == 0
        return {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}

    first = made()
    assert made() == first
    assert len(set(first.values())) == 6
    for name, value in first.items():
        mode = (tmp_path / "secrets" / name).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        assert len(value.removeprefix("admin:")) == 48


def test_what_local_sh_does_not_know_it_says(tmp_path):
    for words in ((), ("start",), ("up", "redis")):
        said = run(INFRA / "local.sh", *words, ALIGNTUNE_LOCAL=tmp_path / "stack")
        assert said.returncode == 2
        assert "Prefect" in said.stderr


def test_without_servers_status_is_down_and_down_is_nothing(tmp_path):
    where = {"ALIGNTUNE_LOCAL": tmp_path / "stack", "ALIGNTUNE_LOCAL_PORT": str(free_ports())}
    said = run(INFRA / "local.sh", "status", **where)
    assert said.returncode == 1
    assert [line.split()[1] for line in said.stdout.splitlines()] == ["down"] * 5
    assert run(INFRA / "local.sh", "down", **where).returncode == 0
