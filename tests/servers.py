"""Real servers on loopback."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from local import LocalError, Stack, free_ports, postgres_tools


@contextmanager
def stack() -> Iterator[Stack]:
    """The services of infra/local.py on ports and in a folder of their own, none of them started;
    afterwards there is none of their processes."""
    try:
        postgres_tools()
    except LocalError as error:
        pytest.skip(str(error))
    # Not below pytest's folder, which user postgres may not enter.
    folder = Path(tempfile.mkdtemp(prefix="aligntune-stack-"))
    folder.chmod(0o711)
    found = Stack(folder, free_ports())
    try:
        yield found
    finally:
        found.down()
        assert found.processes() == []
        shutil.rmtree(folder)
