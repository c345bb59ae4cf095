"""Processes that can be killed, for libraries that may take for ever over a policy's answer.

They are kept from batch to batch. A signal in this process would not do: rewards are called in
threads, and only a main thread can wait for one.
"""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any

from aligntune.errors import ConfigError

_NAMES = ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")
_SHARED = {name: os.environ[name] for name in _NAMES if name in os.environ}
"""What a process needs of our environment. It evaluates what a policy wrote: no token is there."""


class Pool:
    """Processes of `serve` that answer requests of one kind."""

    def __init__(self, kind: str, package: str) -> None:
        self._kind = kind
        self._package = package
        # Taking from it and putting back is atomic.
        self._idle: list[_Worker] = []
        atexit.register(self._close)
        # A fork would share the pipes.
        os.register_at_fork(after_in_child=self._idle.clear)

    def ask(
        self, requests: Sequence[tuple[Hashable, ...]], seconds: float, workers: int
    ) -> list[str | None]:
        """A word for each, None for what takes more than `seconds` of CPU time. What is asked
        twice is answered once. Safe in threads.

        Raises ConfigError where the package does not start.
        """
        different = list(dict.fromkeys(requests))
        with ThreadPoolExecutor(workers) as pool:
            words = pool.map(lambda request: self._one(request, seconds), different)
            known = dict(zip(different, words, strict=True))
        return [known[request] for request in requests]

    def _one(self, request: Sequence[Any], seconds: float) -> str | None:
        worker = self._idle.pop() if self._idle else _Worker(self._kind, self._package)
        try:
            word = worker.ask(request, seconds)
        except BaseException:
            worker.close()
            raise
        if word is None:
            worker.close()
        else:
            self._idle.append(worker)
        return word

    def _close(self) -> None:
        while self._idle:
            self._idle.pop().close()


@cache
def pool(kind: str, package: str) -> Pool:
    """The one of that kind."""
    return Pool(kind, package)


class _Worker:
    def __init__(self, kind: str, package: str) -> None:
        path = os.pathsep.join(folder for folder in sys.path if folder)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "aligntune.rewards.serve", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            env=_SHARED | {"PYTHONPATH": path},
        )
        if self._line() != "ready":
            self.close()
            raise ConfigError(
                f"the package {package} does not start; `python -c 'import {package}'` says why"
            )

    def ask(self, request: Sequence[Any], seconds: float) -> str | None:
        """What the process says; None where it ended."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps([seconds, *request]) + "\n")
            self._process.stdin.flush()
        except OSError:
            return None
        return self._line() or None

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                assert pipe
                pipe.close()
        self._process.wait()
