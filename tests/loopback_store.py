"""What a loopback hub holds: repositories, their commits, and the files of each commit."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".gz", ".arrow", ".model", ".zip")
LFS_SIZE = 10_000_000


def is_lfs(name: str, size: int) -> bool:
    """Whether the hub keeps a file outside git, with a sha256 instead of a git id."""
    return name.endswith(LFS_SUFFIXES) or size > LFS_SIZE


@dataclass(frozen=True)
class Blob:
    """One version of a file: its bytes, or where they are on disk."""

    source: bytes | Path
    size: int
    sha256: str
    git: str
    lfs: bool

    @classmethod
    def of(cls, name: str, source: bytes | Path) -> Self:
        data = source if isinstance(source, bytes) else source.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        sha256 = hashlib.sha256(data).hexdigest()
        return cls(source, len(data), sha256, git, is_lfs(name, len(data)))

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git

    def read(self) -> bytes:
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    def entry(self, name: str) -> dict[str, Any]:
        """The file as the tree and paths-info endpoints list it."""
        entry = {"type": "file", "path": name, "size": self.size, "oid": self.git}
        lfs = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
        return entry | ({"lfs": lfs} if self.lfs else {})

    def sibling(self, name: str) -> dict[str, Any]:
        """The file as a repository's own description lists it."""
        entry = {"rfilename": name, "size": self.size, "blobId": self.git}
        lfs = {"sha256": self.sha256, "size": self.size, "pointerSize": 134}
        return entry | ({"lfs": lfs} if self.lfs else {})


@dataclass
class Repo:
    """A repository: commits from the first to the newest, and what the branches and tags name."""

    private: bool = False
    gated: bool = False
    history: list[tuple[str, str]] = field(default_factory=list)
    """(commit, message), oldest first."""
    trees: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def add(self, tree: dict[str, Blob], message: str) -> str:
        parent = self.refs.get("main", "")
        listing = [f"{name} {blob.sha256}" for name, blob in sorted(tree.items())]
        commit = hashlib.sha1("\n".join([parent, message, *listing]).encode()).hexdigest()
        self.history.append((commit, message))
        self.trees[commit] = tree
        self.refs["main"] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.trees else None)


@dataclass(frozen=True)
class Request:
    """What the server saw of one request."""

    method: str
    path: str
    authorization: str | None
