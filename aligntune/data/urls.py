"""Files behind fsspec URLs: fetched once per content, into the cache."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from posixpath import commonpath, dirname, relpath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aligntune.aside import promptly
from aligntune.data.files import READERS, suffix
from aligntune.errors import AlignTuneError, ConfigError, ResourceError, ServiceError

T = TypeVar("T")

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs",
            "abfs": "adlfs", "sftp": "paramiko", "http": "aiohttp", "https": "aiohttp"}  # fmt: skip
"""What `pip install` gives a protocol, where fsspec itself does not."""
TAGS = ("ETag", "Content-MD5", "Digest", "Last-Modified", "size")
"""What web servers say of a file's content; the size alone says too little."""


def fetch(url: str) -> dict[str, Path]:
    """Local copies of the file at `url`, of the data files below it if it ends with a slash, or of
    those that a glob in it names: name -> copy, sorted.

    A copy is made again when the server's tag of the file changes, or if it gives none.

    Raises:
        ConfigError: nothing is there, it is no data file, or the protocol's package is missing.
        ServiceError: it cannot be reached.
        ResourceError: there is no place for the copy.
    """
    with _reaching(url):
        filesystem, path = _filesystem(url)
        found = _within(partial(_found, filesystem, path, below=url.endswith("/")))
        if not found:
            known = ", ".join(READERS)
            raise ConfigError(
                f"dataset {public(url)!r} is no data file; names must end in one of {known}"
            )
        names = labels([_plain(file) for file in found])
        return {name: _copy(filesystem, file) for name, file in zip(names, found, strict=True)}


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, path = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        scheme = urlsplit(url).scheme
        package = PACKAGES.get(scheme)
        remedy = f"pip install {package}" if package else "use a protocol that fsspec knows"
        raise ConfigError(
            f"dataset {public(url)!r}: {scheme}:// cannot be read; {remedy}"
        ) from error
    return filesystem, path


def public(name: str) -> str:
    """A dataset's name; of a URL, each of a chain, without a password or a signature."""
    return "::".join(_public(part) if "://" in part else part for part in name.split("::"))


def labels(paths: list[str]) -> list[str]:
    """The paths below the directory that they are all in."""
    root = commonpath([dirname(path) or "." for path in paths])
    return [relpath(path, root) for path in paths]


def _public(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _found(filesystem: Any, path: str, *, below: bool) -> list[str]:
    """The data files that the path names. Raises what the filesystem does for one of no file."""
    pattern = f"{path.rstrip('/')}/**" if below else path
    web = path.startswith(("http://", "https://"))
    if not set(pattern.partition("?")[0] if web else pattern) & set("*?["):
        filesystem.info(path)
        return [path] if suffix(_plain(path)) else []
    return sorted(str(file) for file in filesystem.glob(pattern) if suffix(_plain(str(file))))


def _plain(path: str) -> str:
    """Without the query of a web address."""
    return urlsplit(path).path if "://" in path else path


def _copy(filesystem: Any, path: str) -> Path:
    from fsspec.implementations.local import LocalFileSystem

    if isinstance(filesystem, LocalFileSystem):
        return Path(path)
    tag = _within(partial(_tag, filesystem, path))
    key = hashlib.sha256(f"{filesystem.protocol}{path}{tag}".encode()).hexdigest()
    folder = _cache() / key[:32]
    target = folder / Path(_plain(path)).name
    if tag and target.exists():
        return target
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        from tempfile import NamedTemporaryFile

        with NamedTemporaryFile(dir=folder, delete=False) as file:
            part = Path(file.name)
    try:
        _within(partial(filesystem.get_file, path, str(part)))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _within(ask: Callable[[], T]) -> T:
    return promptly(ask, "a file is fetched")


def _tag(filesystem: Any, path: str) -> str:
    """What changes with the file's content; empty where the server does not say."""
    if not path.startswith(("http://", "https://")):
        return str(filesystem.ukey(path))
    # fsspec takes what is on the web for something that never changes.
    told = {name: value for name, value in filesystem.info(path).items() if name in TAGS}
    return str(sorted(told.items())) if set(told) - {"size"} else ""


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "aligntune" / "data"


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"{folder}: {error.strerror}; make room, or set XDG_CACHE_HOME"
        ) from error


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turns what the protocols' clients raise into our errors, without the secrets in a URL."""
    what = f"dataset {public(url)!r}"
    try:
        yield
    except AlignTuneError:
        raise
    except Exception as error:  # every protocol's client has errors of its own
        # A web server that is down is a FileNotFoundError to fsspec; its cause tells more.
        missing = isinstance(error, FileNotFoundError)
        reason = error.__cause__ if missing and error.__cause__ else error
        status = getattr(reason, "status", None)
        if status in (401, 403) or isinstance(reason, PermissionError):
            raise ConfigError(f"{what}: access is denied; check the credentials") from error
        if status in (404, 410) or (missing and reason is error):
            raise ConfigError(f"{what}: there is no such file") from error
        told = f"status {status}" if status else type(reason).__name__
        raise ServiceError(f"{what} could not be fetched: {told}; try again later") from error
