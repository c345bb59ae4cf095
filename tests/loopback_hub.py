"""A hub on 127.0.0.1 for the real `huggingface_hub` and `datasets` clients: download and push.

    with LoopbackHub(root) as hub:  # root/models/<owner>/<name>/..., root/datasets/...
        subprocess.run([...], env={**os.environ, **hub.env(tmp_path)})
        hub.fail(503, path="/resolve/", times=2)  # the next two requests there get a 503
        hub.files("model", "me/tiny"), hub.commits("me/tiny"), hub.requests

Commit ids depend on content only. Nothing is written to `root`: a push lives in memory. The server
never offers xet, but a client that has `hf_xet` uploads through it without being asked, so the
client's environment must also say `HF_HUB_DISABLE_XET=1`; `env` and `connect` do.
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Literal, Self

import pytest
from loopback_routes import TOKEN, Handler
from loopback_store import Blob, Repo, Request

RepoType = Literal["model", "dataset"]
Fault = int | Literal["cut", "stall", "short", "tamper", "lost", "etag", "redirect"]
"""A status, or: close without an answer, answer nothing for 3 s, close halfway through the body,
flip a bit of the body, do the work but close without an answer, tell a wrong digest, lead to the
same address for ever."""


@dataclass
class Plan:
    fault: Fault
    method: str | None
    path: str
    times: int
    headers: Mapping[str, str]
    message: str


class LoopbackHub:
    """The server, its repositories, its record of requests and the faults it was told to show."""

    def __init__(self, root: Path | None = None) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.lock = threading.RLock()
        self.front: str | None = None
        """The address that clients are given instead of its own."""
        self._plans: list[Plan] = []
        for kind in ("model", "dataset"):
            for folder in sorted((root / f"{kind}s").glob("*/*")) if root else []:
                files = sorted(path for path in folder.rglob("*") if path.is_file())
                tree = {path.relative_to(folder).as_posix(): path for path in files}
                self.commit(kind, "/".join(folder.parts[-2:]), tree, "initial commit")

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self))
        self._server.daemon_threads = True
        threading.Thread(target=partial(self._server.serve_forever, 0.05), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return self.front or f"http://127.0.0.1:{self.port}"

    def env(self, tmp_path: Path) -> dict[str, str]:
        """Variables for a client in a child process, to be laid over `os.environ`."""
        home = tmp_path / "hf"
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_TOKEN": TOKEN,
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # else `datasets` tells a host outside what it loads
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def connect(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Point the client in this process here: it read most of its variables when imported."""
        from huggingface_hub import constants

        env = self.env(tmp_path)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, self.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        for name in ("HF_HUB_CACHE", "HF_TOKEN_PATH"):
            monkeypatch.setattr(constants, name, env[name])
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def fail(
        self,
        fault: Fault,
        *,
        path: str = "",
        method: str | None = None,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
        message: str = "told to fail",
    ) -> None:
        """Spoil the next `times` requests whose path holds the regular expression `path`."""
        self._plans.append(Plan(fault, method, path, times, headers or {}, message))

    def heal(self) -> None:
        """Forget every fault."""
        with self.lock:
            self._plans.clear()

    def take_fault(self, method: str, path: str) -> Plan | None:
        with self.lock:
            for plan in self._plans:
                if plan.times and plan.method in (None, method) and re.search(plan.path, path):
                    plan.times -= 1
                    return plan
        return None

    def commit(
        self,
        repo_type: str,
        repo_id: str,
        files: Mapping[str, bytes | Path],
        message: str = "update",
    ) -> str:
        """The commit that adds `files` to main, as if someone had pushed them; makes the repo."""
        with self.lock:
            repo = self.repos.setdefault((repo_type, repo_id), Repo())
            tree = dict(repo.trees[repo.refs["main"]]) if repo.history else {}
            tree |= {name: Blob.of(name, source) for name, source in files.items()}
            return repo.add(tree, message)

    def tag(self, repo_type: RepoType, repo_id: str, name: str) -> None:
        repo = self.repos[repo_type, repo_id]
        repo.refs[name] = repo.refs["main"]

    def files(self, repo_type: RepoType, repo_id: str) -> dict[str, bytes]:
        """Every file of the current main."""
        repo = self.repos[repo_type, repo_id]
        return {name: blob.read() for name, blob in repo.trees[repo.refs["main"]].items()}

    def commits(self, repo_id: str, repo_type: RepoType = "model") -> list[str]:
        """Commit ids, oldest first."""
        return [commit for commit, _ in self.repos[repo_type, repo_id].history]

    def count(self, method: str, path: str) -> int:
        """How many requests so far have that method and a path with that regular expression."""
        return sum(r.method == method and bool(re.search(path, r.path)) for r in self.requests)
