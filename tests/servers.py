"""Real servers on loopback, and a line to them that can break."""

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from local import LocalError, Stack, free_ports, postgres_tools

START = 120.0
"""Seconds that a server may take to answer on a busy machine."""


def until(true: Callable[[], bool], what: str, seconds: float = START) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} took more than {seconds:g} s"
        time.sleep(0.1)


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


class Line:
    """A TCP line to a port. `pass` lets everything through; `refuse` cuts what is open and answers
    nobody; `deaf` brings requests there and cuts the line when the answer comes."""

    def __init__(self, port: int) -> None:
        self.mode: Literal["pass", "refuse", "deaf"] = "pass"
        self.swallowed = 0
        """Answers that were lost on the way."""
        self._there = ("127.0.0.1", port)
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, mode: Literal["pass", "refuse", "deaf"]) -> None:
        self.mode = mode
        if mode == "refuse":
            for each in list(self._open):
                _cut(each)

    def close(self) -> None:
        self.set("refuse")
        _cut(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "refuse":
                _cut(near)
                continue
            try:
                far = socket.create_connection(self._there)
            except OSError:
                _cut(near)
                continue
            self._open |= {near, far}
            for source, sink, answer in ((near, far, False), (far, near, True)):
                threading.Thread(
                    target=self._pump, args=(source, sink, answer), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answer: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65_536):
                if answer and self.mode == "deaf":
                    self.swallowed += 1
                    break
                sink.sendall(chunk)
        for each in (source, sink):
            self._open.discard(each)
            _cut(each)


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
