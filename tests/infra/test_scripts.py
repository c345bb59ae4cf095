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


@pytest.mark.parametrize("name", ["mlflow", "prefect", "weed"])
def test_a_server_is_started_on_loopback_and_with_its_password(tmp_path, name):
    """What serve.sh would run, from a program of that name which says how it was started."""
    assert run(INFRA / "secrets.sh", tmp_path / "secrets").returncode == 0
    (tmp_path / name).write_text('#!/bin/sh\necho "$@"\nenv\n')
    (tmp_path / name).chmod(0o700)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    where = {"SECRETS": str(tmp_path / "secrets"), "STATE": str(tmp_path), "PATH": path}
    service = "s3" if name == "weed" else name
    started = run(INFRA / "serve.sh", service, **where)
    assert started.returncode == 0, started.stderr
    arguments, _, environment = started.stdout.partition("\n")
    if name == "weed":
        assert "-ip=127.0.0.1" in arguments
        assert "-s3.ip.bind=127.0.0.1" in arguments
        assert "AWS_SECRET_ACCESS_KEY=" in environment
        return
    assert "--host 127.0.0.1" in arguments
    if name == "mlflow":
        assert "--app-name basic-auth" in arguments
        assert "default_permission = NO_PERMISSIONS" in (tmp_path / "auth.ini").read_text()
    else:
        password = (tmp_path / "secrets" / "prefect-auth").read_text()
        assert f"PREFECT_SERVER_API_AUTH_STRING={password}" in environment
