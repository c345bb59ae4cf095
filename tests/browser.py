"""A page in headless Chromium, by its DevTools protocol: what it shows after its scripts ran."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    def open(self, url: str) -> None:
        self._ask("Page.navigate", url=url)

    def text(self) -> str:
        """What a person reads."""
        return str(self._value("document.body ? document.body.innerText : ''"))

    def links(self) -> list[str]:
        return list(self._value("[...document.querySelectorAll('a')].map(a => a.href)"))

    def wait_for(self, *words: str, seconds: float = 90) -> str:
        """The page's text as soon as it has all of the words."""
        end = time.monotonic() + seconds
        while not all(word in (text := self.text()) for word in words):
            assert time.monotonic() < end, f"{words} are not all in {text!r}"
            time.sleep(0.3)
        return text

    def picture(self, path: Path) -> None:
        shot = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _value(self, expression: str) -> Any:
        return self._ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"][
            "value"
        ]

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])


@contextmanager
def page(headers: Mapping[str, str]) -> Iterator[Page]:
    """An empty tab that sends `headers` with every request."""
    from websockets.sync.client import connect

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [
                str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-quic", "--window-size=1400,1400", "--remote-debugging-port=0",
                f"--user-data-dir={profile}", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            with connect(_address(Path(profile)), max_size=None) as socket:
                made = Page(socket)
                made._ask("Network.enable")
                made._ask("Network.setExtraHTTPHeaders", headers=dict(headers))
                yield made
        finally:
            browser.terminate()
            browser.wait(30)


def _address(profile: Path) -> str:
    """Where the first tab listens; the browser writes its port down."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError, IndexError, StopIteration):
            port = (profile / "DevToolsActivePort").read_text().split()[0]
            with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                tabs = json.load(answer)
            return str(next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page"))
        time.sleep(0.2)
    raise AssertionError("Chromium did not open a tab")
