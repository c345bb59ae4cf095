"""A TCP line to a server on loopback that breaks in the ways that networks and servers do.

with Proxy(port) as line:
    client(line.url)
    line.set("stall")       # at any time, for open connections too
    line.doom(3, "answer")  # of the third exchange from now on, the answer is lost
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

Mode = Literal["pass", "refuse", "stall", "503", "slow", "cut", "torn", "deaf"]
"""`refuse` cuts what is open and answers nobody. `stall` takes connections and holds every byte
until the mode changes. `503` answers every request itself. `slow` lets `rate` bytes a second
through. `cut` lets half of an answer through, `torn` its first line, `deaf` nothing of it, and all
three then cut the line."""
Half = Literal["request", "answer"]

_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\naway"
)
_PIECE = 4096
"""Bytes at a time."""


@dataclass(eq=False)
class _Pair:
    """A client's connection and the one to the server that belongs to it."""

    near: socket.socket
    far: socket.socket
    asking: bool = False
    """The client spoke last."""
    exchange: int = 0
    """Which request of the line this connection is at."""

    def cut(self) -> None:
        for end in (self.near, self.far):
            _cut(end)


class Proxy:
    """One line. Of HTTP it knows only that a client asks and a server answers, in turns."""

    def __init__(self, port: int, rate: int = 20_000) -> None:
        self.mode: Mode = "pass"
        self.rate = rate
        self.exchanges = 0
        """Requests that have begun."""
        self.swallowed = 0
        """Answers that did not arrive whole."""
        self.refused = 0
        """Connections that nobody took."""
        self._there = ("127.0.0.1", port)
        self.held = threading.Event()
        self._doomed: tuple[int, Half] | None = None
        self._hold = False
        self._quota = self._left = self._cuts = 0
        self._pairs: list[_Pair] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, mode: Mode) -> None:
        with self._changed:
            self.mode = mode
            self._changed.notify_all()
        if mode == "refuse":
            self.cut()

    def cut(self) -> None:
        """Cut every open connection, those that are kept alive between requests too."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.cut()

    def doom(self, exchange: int, half: Half, *, hold: bool = False) -> None:
        """Cut the line at the `exchange`-th request from now on: before it gets to the server, or
        when the answer comes back. What follows passes. With `hold` nothing is cut: it waits there,
        and `held` is set."""
        self._doomed, self._hold = (self.exchanges + exchange, half), hold
        self.held.clear()

    def cut_after(self, size: int, times: int) -> None:
        """Cut the line after so many bytes of answers, and then after as many again."""
        with self._lock:
            self._quota, self._left, self._cuts = size, size, times

    def heal(self) -> None:
        """Everything passes, on new connections."""
        self._doomed, self._cuts = None, 0
        self.set("pass")
        self.cut()

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
                self.refused += 1
                _cut(near)
                continue
            try:
                far = socket.create_connection(self._there)
            except OSError:
                _cut(near)
                continue
            pair = _Pair(near, far)
            with self._lock:
                self._pairs.append(pair)
            for pump in (self._requests, self._answers):
                threading.Thread(target=partial(self._pumped, pump, pair), daemon=True).start()

    def _pumped(self, pump: Callable[[_Pair], None], pair: _Pair) -> None:
        with contextlib.suppress(OSError):
            pump(pair)
        pair.cut()
        with self._lock, contextlib.suppress(ValueError):
            self._pairs.remove(pair)

    def _requests(self, pair: _Pair) -> None:
        while piece := pair.near.recv(_PIECE):
            if not pair.asking:
                with self._lock:
                    self.exchanges += 1
                    pair.exchange = self.exchanges
                pair.asking = True
            if self._meets_doom(pair, "request"):
                return
            self._held(len(piece))
            if self.mode == "503":
                pair.near.sendall(_UNAVAILABLE)
                pair.near.shutdown(socket.SHUT_WR)
                while pair.near.recv(_PIECE):  # else the rest of the request resets the connection
                    pass
                return
            pair.far.sendall(piece)

    def _answers(self, pair: _Pair) -> None:
        while piece := pair.far.recv(_PIECE):
            pair.asking = False
            lost = self._meets_doom(pair, "answer")
            if lost or self.mode in ("cut", "torn", "deaf"):
                self.swallowed += 1
                kept = {"cut": len(piece) // 2, "torn": piece.find(b"\n") + 1}
                if not lost:
                    pair.near.sendall(piece[: kept.get(self.mode, 0)])
                return
            allowed = self._allowed(len(piece))
            if allowed < len(piece):
                pair.near.sendall(piece[:allowed])
                return
            self._held(len(piece))
            pair.near.sendall(piece)

    def _meets_doom(self, pair: _Pair, half: Half) -> bool:
        if self._doomed != (pair.exchange, half):
            return False
        self.held.set()
        with self._changed:
            while self._hold and self._doomed:
                self._changed.wait(0.1)
        return True

    def _allowed(self, size: int) -> int:
        """How many of so many bytes of an answer may pass."""
        with self._lock:
            if not self._cuts:
                return size
            allowed = min(size, self._left)
            self._left -= allowed
            if allowed < size:
                self._cuts -= 1
                self._left = self._quota
            return allowed

    def _held(self, size: int) -> None:
        """Wait as long as the mode wants for so many bytes."""
        with self._changed:
            while self.mode == "stall":
                self._changed.wait()
        if self.mode == "slow":
            time.sleep(size / self.rate)


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
