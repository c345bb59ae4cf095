"""Where rows come from: a name in a config -> what identifies its content -> its rows.

A name is a file if it has a data file's suffix or starts like a path, a generator if it starts with
`<scheme>:`, and else a hub id.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from aligntune.config.data import Dataset
from aligntune.data import files
from aligntune.data.rows import Row, Rows
from aligntune.digest import sha256
from aligntune.errors import ConfigError, DataError, unknown

Kind = Literal["file", "procedural", "hub"]
PATHLIKE = ("./", "../", "/", "~")
_SCHEME = re.compile(r"([A-Za-z][\w-]*):(.*)", re.DOTALL)


@dataclass(frozen=True)
class Generator:
    """A procedural source. Both functions raise ConfigError for wrong params."""

    identity: Callable[[str, Mapping[str, Any]], str]
    """(what follows the colon, params) -> `<generator>:<version>`."""
    rows: Callable[[str, Mapping[str, Any], str], list[Row]]
    """(what follows the colon, params, split) -> the rows."""


GENERATORS = {
    "arithmetic": "aligntune.data.arithmetic",
    "reasoning_gym": "aligntune.data.reasoning_gym",
}
"""Scheme -> the module with its `identity` and `rows`."""


def check(dataset: Dataset) -> Kind:
    """What kind of source it is. ConfigError for what can be known to be wrong at a glance."""
    kind = _kind(dataset.name)
    _refuse_settings(dataset, kind)
    if kind == "file":
        _file(dataset.name)
    elif kind == "procedural":
        generator, task = _generator(dataset.name)
        with _named(dataset):
            generator.identity(task, dataset.params)
    return kind


def fingerprint(dataset: Dataset) -> str:
    """What identifies the content: `sha256:<hex>` of a file, `commit:<40 hex>` on the hub,
    `procedural:<generator>:<version>`.

    Raises ConfigError for whatever can be known to be wrong without reading rows.
    """
    kind = check(dataset)
    if kind == "file":
        return f"sha256:{sha256(_file(dataset.name))}"
    if kind == "procedural":
        generator, task = _generator(dataset.name)
        with _named(dataset):
            return f"procedural:{generator.identity(task, dataset.params)}"
    from aligntune.hub import commit_of

    return f"commit:{commit_of(dataset.name, 'dataset', dataset.revision)}"


def read(dataset: Dataset, fingerprint: str) -> Rows:
    """The rows that `fingerprint` identifies, with `columns` applied.

    Raises DataError for a broken file, or one that has changed since.
    """
    rows = _read(dataset, fingerprint)
    if not rows.count:
        raise DataError(f"dataset {dataset.name!r} ({dataset.split}) has no rows")
    return _renamed(rows, dataset) if dataset.columns else rows


def _read(dataset: Dataset, fingerprint: str) -> Rows:
    kind = _kind(dataset.name)
    if kind == "file":
        path = _file(dataset.name)
        if fingerprint != f"sha256:{sha256(path)}":
            raise DataError(f"{path} has changed since the run was planned; start it again")
        return files.read_file(path)
    if kind == "procedural":
        generator, task = _generator(dataset.name)
        with _named(dataset):
            return Rows.of(generator.rows(task, dataset.params, dataset.split))
    from aligntune.data.remote import read_hub

    return read_hub(dataset, fingerprint.removeprefix("commit:"))


def _kind(name: str) -> Kind:
    if name.startswith(PATHLIKE):
        return "file"
    if _SCHEME.fullmatch(name):
        return "procedural"
    return "file" if files.suffix(name) else "hub"


_REFUSED = {
    "file": {"subset": "hub datasets", "revision": "hub datasets", "params": "generators"},
    "procedural": {"subset": "hub datasets", "revision": "hub datasets"},
    "hub": {"params": "generators"},
}
"""Settings that mean nothing for a kind of source, and what they are for."""


def _refuse_settings(dataset: Dataset, kind: str) -> None:
    given = dataset.model_dump(exclude_defaults=True)
    for name, purpose in _REFUSED[kind].items():
        if name in given:
            raise ConfigError(
                f"dataset {dataset.name!r}: `{name}` is for {purpose}; remove it from this one"
            )
    if kind == "file" and dataset.split != "train":
        raise ConfigError(
            f"dataset {dataset.name!r}: a file is one split, so `split` must be 'train' and not "
            f"{dataset.split!r}; name the file that holds the other split"
        )


def _file(name: str) -> Path:
    path = Path(name).expanduser().absolute()
    if not path.exists():
        raise ConfigError(f"dataset {name!r} does not exist; {path} was looked for")
    if not path.is_file():
        raise ConfigError(f"dataset {name!r} is a directory; name a file in {path}")
    if files.suffix(path.name) is None:
        raise ConfigError(
            f"dataset {name!r}: unknown kind of file; its name must end in one of "
            f"{', '.join(files.READERS)}"
        )
    return path


def _generator(name: str) -> tuple[Generator, str]:
    scheme, _, task = name.partition(":")
    if scheme not in GENERATORS:
        raise ConfigError(f"dataset {name!r}: " + unknown("generator", scheme, GENERATORS))
    module = import_module(GENERATORS[scheme])
    return Generator(module.identity, module.rows), task


@contextmanager
def _named(dataset: Dataset) -> Iterator[None]:
    """Puts the dataset's name before a generator's complaint."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"dataset {dataset.name!r}: {error}") from error


def _renamed(rows: Rows, dataset: Dataset) -> Rows:
    """`rows` with the columns that `dataset.columns` names under their new names."""
    for column in dataset.columns.values():
        if column not in rows.columns:
            raise ConfigError(
                f"dataset {dataset.name!r}, `columns`: " + unknown("column", column, rows.columns)
            )
    moved = set(dataset.columns.values())
    kept = tuple(c for c in rows.columns if c not in moved and c not in dataset.columns)

    def at(indices: Sequence[int]) -> Iterator[Row]:
        for row in rows.at(indices):
            same = {name: row[name] for name in kept if name in row}
            yield same | {new: row[old] for new, old in dataset.columns.items() if old in row}

    return replace(rows, columns=(*kept, *dataset.columns), at=at)
