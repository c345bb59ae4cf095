"""Python code in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def printed(
    code: str,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> str:
    """What `code` prints with these arguments; it has to end well. `env` is added to ours."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=os.environ | (env or {}),
        cwd=cwd,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def started(module: str, *arguments: object, **variables: str) -> "subprocess.Popen[str]":
    """`python -m module` going on; all that it says comes through its `stdout`. `variables` are
    added to ours."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | variables,
    )


def loaded_by(module: str) -> set[str]:
    """The modules that are loaded once `module` is imported."""
    return set(printed(f"import sys, {module}; print(*sys.modules)").split())
