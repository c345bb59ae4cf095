"""Files behind fsspec URLs: fetched once per content, into the cache."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import urlsplit

from aligntune.errors import ConfigError, DataError, ServiceError

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs",
            "abfs": "adlfs", "sftp": "paramiko", "http": "aiohttp", "https": "aiohttp"}  # fmt: skip
"""What `pip install` gives a protocol, where fsspec itself does not."""


def fetch(url: str) -> list[Path]:
    """Local copies of the file at `url`, or of every one that a glob in it names, sorted by name.

    A copy is made again when the server's tag of the file changes.

    Raises:
        ConfigError: nothing is there, or the protocol's package is not.
        ServiceError: it cannot be reached.
    """
    import fsspec

    with _reaching(url):
        filesystem, path = fsspec.url_to_fs(url)
        paths = sorted(filesystem.glob(path)) if set(path) & set("*?[") else [path]
        if not paths or not all(filesystem.isfile(found) for found in paths):
            raise ConfigError(f"dataset {public(url)!r}: there is no such file")
        return [_copy(filesystem, str(found)) for found in paths]


def public(url: str) -> str:
    """The URL without a password or a signature."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _copy(filesystem: Any, path: str) -> Path:
    protocol = filesystem.protocol
    tag = f"{protocol}{path}{filesystem.ukey(path)}"
    folder = _cache() / hashlib.sha256(tag.encode()).hexdigest()[:32]
    target = folder / Path(urlsplit(path).path).name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, delete=False) as file:
            part = Path(file.name)
        try:
            filesystem.get_file(path, str(part))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return target


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "aligntune" / "data"


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    name, scheme = public(url), urlsplit(url).scheme
    try:
        yield
    except (ConfigError, DataError):
        raise
    except (ImportError, ValueError) as error:
        package = PACKAGES.get(scheme)
        remedy = f"pip install {package}" if package else "use a protocol that fsspec knows"
        raise ConfigError(f"dataset {name!r}: {scheme}:// cannot be read; {remedy}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"dataset {name!r}: there is no such file") from error
    except PermissionError as error:
        raise ConfigError(f"dataset {name!r}: access is denied; check the credentials") from error
    except Exception as error:  # every protocol's client has errors of its own
        raise ServiceError(
            f"dataset {name!r} could not be fetched: {type(error).__name__}; try again later"
        ) from error
