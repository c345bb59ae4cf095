"""Stage outputs on disk: content-addressed directories that exist only when complete.

    <root>/<kind>-<key>/            a finished artifact: its files, and manifest.json
    <root>/<kind>-<key>.partial/    one being built; `work/` in it is scratch and is not kept
    <root>/.locks/<kind>-<key>      held by the process that builds it

The manifest is written last and the directory is renamed after it, everything fsynced in between,
so a path without the suffix is whole even after a power cut.
"""

import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from aligntune.digest import sha256
from aligntune.errors import ResourceError

MANIFEST = "manifest.json"
WORK = "work"
LINKED = 2**20
"""Bytes from which on a file is linked rather than copied."""
_POLL = 0.5
"""Seconds between looks at a lock that another process holds."""
_STAGING = re.compile(r"\..+\.(\d+)(?:-\d+)?\.new")
"""The name of what is about to replace a file, with the process that writes it."""
_numbers = itertools.count()
_writing: set[Path] = set()
"""What the threads of this process are writing."""


class FileRecord(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True)

    sha256: str
    size: int
    """Bytes."""


class Manifest(BaseModel):
    """What an artifact is, where it came from, and the digest of every file in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    format: int = 1
    kind: str
    key: str
    identity: dict[str, Any]
    """Everything the key digests, readable."""
    inputs: dict[str, str]
    """Role -> `<kind>-<key>` of the artifacts it was made from."""
    environment: dict[str, str]
    """Versions at build time, the exact ones; the key holds only the minor ones."""
    metrics: dict[str, float]
    facts: dict[str, Any] = {}
    """What else the stage wants remembered: row counts, a hub commit, a model version."""
    started: str
    finished: str
    seconds: float
    """Time spent building, over all attempts that are known."""
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class Artifact:
    """A finished stage's directory."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.path.name

    def read(self, name: str) -> dict[str, Any]:
        """One of its JSON files."""
        found: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        return found


def key_of(identity: Mapping[str, Any]) -> str:
    """The first 12 hex digits of the sha256 of `identity` as canonical JSON."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def find(root: Path, kind: str, key: str, *, verify: bool = False) -> Artifact | None:
    """The finished artifact of that key, or None if it is absent or its files do not fit its
    manifest. `verify` also re-reads every file's digest."""
    return _whole(root / f"{kind}-{key}", key, verify=verify)


def find_named(root: Path, name: str, *, verify: bool = False) -> Artifact | None:
    """`find` by `<kind>-<key>`."""
    kind, _, key = name.rpartition("-")
    return find(root, kind, key, verify=verify)


def unnamed(root: Path, kind: str, key: str, *, verify: bool = False) -> Artifact | None:
    """The artifact whose build was killed when it was whole and had not got its name yet."""
    return _whole(root / f"{kind}-{key}.partial", key, verify=verify)


def _whole(path: Path, key: str, *, verify: bool) -> Artifact | None:
    manifest = _manifest(path)
    if manifest and manifest.key == key and _intact(path, manifest.files, verify):
        return Artifact(path, manifest)
    return None


def _manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def ancestors(artifact: Artifact) -> list[Artifact]:
    """Everything `artifact` was made from, nearest first, each once."""
    found: dict[str, Artifact] = {}
    waiting = [artifact]
    while waiting:
        for name in waiting.pop(0).manifest.inputs.values():
            parent = find_named(artifact.path.parent, name)
            if parent and name not in found:
                found[name] = parent
                waiting.append(parent)
    return list(found.values())


def timestamp() -> str:
    """The time, as manifests and notes have it."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def model_files(artifact: Artifact) -> dict[str, FileRecord]:
    """What is in the artifact's `model/`; nothing where it has none."""
    files = artifact.manifest.files.items()
    return {n.removeprefix("model/"): file for n, file in files if n.startswith("model/")}


def model_digest(artifact: Artifact) -> str:
    """`digest_of` the files of the artifact's model."""
    return digest_of(model_files(artifact))


def digest_of(files: Mapping[str, FileRecord]) -> str:
    """sha256 over the names and contents of files."""
    return hashlib.sha256(listing(files).encode()).hexdigest()


def listing(files: Mapping[str, FileRecord]) -> str:
    """Files with their digests, as sha256sum writes them."""
    return "".join(f"{files[name].sha256}  {name}\n" for name in sorted(files))


def _intact(path: Path, files: Mapping[str, FileRecord], verify: bool) -> bool:
    for name, record in files.items():
        file = path / name
        try:
            there = file.stat()
        except OSError:
            return False
        if not stat.S_ISREG(there.st_mode) or there.st_size != record.size:
            return False
        if verify and sha256(file) != record.sha256:
            return False
    return True


def _set_aside(damaged: Path) -> None:
    bad = damaged.with_name(damaged.name + ".bad")
    shutil.rmtree(bad, ignore_errors=True)
    damaged.rename(bad)


@contextmanager
def lock(root: Path, kind: str, key: str, waiting: Callable[[], None]) -> Iterator[None]:
    """One builder per key, on a kernel lock that dies with its holder.

    `waiting` is called again and again while another process holds it, and may raise to give up.
    """
    from filelock import FileLock, Timeout

    folder = root / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / f"{kind}-{key}")
    while not held.is_locked:
        try:
            held.acquire(timeout=_POLL)
        except Timeout:
            waiting()
    try:
        yield
    finally:
        held.release()


def partial(root: Path, kind: str, key: str) -> Path:
    """The directory to build in, for the holder of its lock; what an interrupted build left there
    is kept, apart from files that it was in the middle of replacing."""
    path = root / f"{kind}-{key}.partial"
    (path / WORK).mkdir(parents=True, exist_ok=True)
    for file in path.rglob(".*.new"):
        if _STAGING.fullmatch(file.name):
            file.unlink()
    return path


def commit(partial: Path, manifest: Manifest) -> Artifact:
    """Give a complete `.partial` directory its manifest and its final name.

    A directory that already has the name was found damaged, and is kept as `<name>.bad`. A process
    that is killed in here has lost nothing: `work/` goes when all else is on the disk.
    """
    manifest = manifest.model_copy(update={"files": records(partial)})
    seal(partial, MANIFEST, manifest.model_dump_json(indent=2))
    return _name(partial, manifest)


def committed(root: Path, kind: str, key: str) -> Artifact | None:
    """What is `unnamed`, with its name, or without its manifest if it is damaged; for the holder of
    its lock."""
    if found := unnamed(root, kind, key, verify=True):
        return _name(found.path, found.manifest)
    (root / f"{kind}-{key}.partial" / MANIFEST).unlink(missing_ok=True)
    return None


def _name(partial: Path, manifest: Manifest) -> Artifact:
    shutil.rmtree(partial / WORK, ignore_errors=True)
    final = partial.with_name(f"{manifest.kind}-{manifest.key}")
    if final.exists():
        _set_aside(final)
    partial.rename(final)
    fsync(final.parent)
    return Artifact(final, manifest)


def seal(folder: Path, name: str, manifest: str) -> None:
    """fsync all of `folder` but its scratch, then add the manifest that makes it complete."""
    for path in _kept(folder):
        if not path.is_symlink():
            fsync(path)
    write_atomic(folder / name, manifest)


def records(folder: Path) -> dict[str, FileRecord]:
    """Digest and size of every file below `folder` but its scratch, by relative path."""
    return {
        path.relative_to(folder).as_posix(): FileRecord(
            sha256=sha256(path), size=path.stat().st_size
        )
        for path in _kept(folder)
        if path.is_file() and path.name != MANIFEST
    }


def _kept(folder: Path) -> list[Path]:
    scratch = folder / WORK
    return sorted(
        path
        for top in folder.iterdir()
        if top != scratch
        for path in (top, *(top.rglob("*") if top.is_dir() and not top.is_symlink() else ()))
    )


def linked(source: Path | str, target: Path | str) -> None:
    """Give the file `source` the second name `target`, in place of what is there; or a copy, where
    the disk has no such names or it is of another disk.

    A linked file becomes read-only under both names, since who wrote to one would change the other.
    What is small enough to be edited by hand is copied.
    """
    Path(target).unlink(missing_ok=True)
    try:
        found = os.stat(source)
        if found.st_size >= LINKED:
            os.chmod(source, stat.S_IMODE(found.st_mode) & ~0o222)
            os.link(source, target)
            return
    except OSError:
        pass  # another disk, or one without links, or another user's file
    shutil.copyfile(source, target)


def make_folder(folder: Path) -> None:
    """Make a directory of a run's, and those above it.

    Raises:
        ResourceError: there is no room for it, or there can be none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be made: {error.strerror}; make room or give access, or choose "
            "another logging.output_dir"
        ) from error


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text`: after a crash it holds either the old or the new content."""
    with staged(path) as staging:
        staging.write_text(text, encoding="utf-8", newline="")
        fsync(staging)
    fsync(path.parent)


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A path beside `path` that replaces it at the end of the block. Nothing is left of it after an
    error, nor, once `path` is written again, after a kill."""
    host, own = socket.gethostname(), os.getpid()
    staging = path.with_name(f".{path.name}.{host}.{own}-{next(_numbers)}.new")
    _writing.add(staging.absolute())
    try:
        for left in path.parent.glob(f".{escape(path.name)}.{escape(host)}.*.new"):
            found = _STAGING.fullmatch(left.name)
            if found is None or left.absolute() in _writing:
                continue
            # One with our own number is of a process that had it before.
            if int(found[1]) == own or not _lives(int(found[1])):
                left.unlink(missing_ok=True)
        yield staging
        staging.replace(path)
    except BaseException:
        with suppress(OSError):  # the error matters more
            staging.unlink(missing_ok=True)
        raise
    finally:
        _writing.discard(staging.absolute())


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
