"""Where rows come from: a name in a config -> what identifies its content -> its rows.

A name is of files if it has a data file's suffix, starts like a path, ends with a slash, is a glob
or is that of a file here; `<scheme>://` is a URL, `<scheme>:` a generator, an MLflow run or a
function, and all else a hub id.
"""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from glob import glob
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from aligntune.aside import promptly
from aligntune.config.data import Dataset, TaskType
from aligntune.data import files, imported
from aligntune.data.rows import Row, Rows, Unreadable
from aligntune.data.urls import fetch, labels, public
from aligntune.digest import sha256
from aligntune.errors import ConfigError, DataError, unknown

Kind = Literal["file", "url", "mlflow", "procedural", "function", "hub"]
FILES: tuple[Kind, ...] = ("file", "url", "mlflow")
PATHLIKE = ("./", "../", "/", "~")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SPLIT = re.compile(
    r"(?:^|[-_./])(train(?:ing)?|test|val(?:id(?:ation)?)?|dev|eval(?:uation)?|held[-_]?out|holdout)"
    r"(?=$|[-_./])"
)
"""What names of files and folders say of the split that is in them."""
FEW = 20
"""Files of one dataset whose beginnings are read before a run."""
_AUXILIARY = {"dataset_info.json", "dataset_dict.json", "state.json"}
"""What `datasets` puts beside the rows that it saves."""
_SCHEME = re.compile(r"([A-Za-z][\w.-]*):(.*)", re.DOTALL)


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
        _files(dataset.name)
    elif kind == "hub":
        _refuse_directory(dataset)
    elif kind == "function":
        with _named(dataset):
            imported.identity(dataset.name, dataset.params)
    elif kind == "procedural":
        generator, task = _generator(dataset.name)
        with _named(dataset):
            generator.identity(task, dataset.params)
    return kind


def check_format(dataset: Dataset) -> None:
    """ConfigError for a layout that there is not."""
    if dataset.format is None:
        return
    from aligntune.data.formats import FORMATS

    if dataset.format not in FORMATS:
        raise ConfigError(unknown("format", dataset.format, FORMATS))


def check_columns(dataset: Dataset, task: TaskType | None) -> None:
    """ConfigError for local files whose columns, as far as their beginnings tell, are not those
    that `columns` names, or cannot be read as rows of that type."""
    if _kind(dataset.name) != "file":
        return
    paths = list(_files(dataset.name).values())
    headers = [files.header(path) for path in paths[:FEW]]
    known = dict.fromkeys(name for header in headers for name in header or ())
    if len(paths) > FEW or None in headers or not known:
        return
    from aligntune.data.formats import mismatch, reader

    _refuse_columns(dataset, known)
    columns, wanted = _new_names(dataset, known), task or dataset.task_type
    if reader(columns, wanted, dataset.task_type, dataset.format) is None:
        called = public(dataset.name)
        raise ConfigError(mismatch(called, columns, wanted, (), dataset.format))


def fingerprint(dataset: Dataset) -> str:
    """What identifies the content: `sha256:<hex>` of files, `commit:<40 hex>` on the hub,
    `procedural:<generator>:<version>`, `function:<hex>` of a function's source and params.

    Raises ConfigError for whatever can be known to be wrong without reading rows.
    """
    kind = check(dataset)
    if kind == "procedural":
        generator, task = _generator(dataset.name)
        with _named(dataset):
            return f"procedural:{generator.identity(task, dataset.params)}"
    if kind == "function":
        return f"function:{imported.identity(dataset.name, dataset.params)}"
    if kind == "hub":
        from aligntune.hub import commit_of

        return f"commit:{commit_of(dataset.name, 'dataset', dataset.revision)}"
    return f"sha256:{_digest(_local(dataset, kind))}"


def read(dataset: Dataset, fingerprint: str) -> Rows:
    """The rows that `fingerprint` identifies, with `columns` applied.

    Raises DataError for broken files, or files that have changed since.
    """
    rows = _read(dataset, fingerprint)
    if not rows.count:
        raise DataError(f"{_called(dataset)} ({dataset.split}) has no rows")
    return _renamed(rows, dataset) if dataset.columns else rows


def heldout(dataset: Dataset) -> Dataset | None:
    """The split of the same dataset that is held out: all of it, but of a dataset that is streamed
    because it is huge as many rows as are taken of the other split."""
    if dataset.eval_split is None:
        return None
    most = dataset.max_samples if dataset.streaming else None
    own = {"split": dataset.eval_split, "eval_split": None, "percent": 100.0, "max_samples": most}
    return dataset.model_copy(update=own)


def _read(dataset: Dataset, fingerprint: str) -> Rows:
    kind = _kind(dataset.name)
    if kind == "procedural":
        generator, task = _generator(dataset.name)
        with _named(dataset):
            return Rows.of(generator.rows(task, dataset.params, dataset.split))
    if kind == "function":
        with _named(dataset):
            return Rows.of(imported.rows(dataset.name, dataset.params))
    if kind == "hub":
        from aligntune.data.remote import read_hub

        return read_hub(dataset, fingerprint.removeprefix("commit:"))
    paths = _local(dataset, kind)
    if fingerprint != f"sha256:{_digest(paths)}":
        raise DataError(f"{_called(dataset)} has changed since the run was planned; start it again")
    return files.read_files(paths)


def _kind(name: str) -> Kind:
    if name.startswith(PATHLIKE):
        return "file"
    if _URL.match(name):
        return "url"
    if found := _SCHEME.fullmatch(name):
        if found[1] == "mlflow":
            return "mlflow"
        return "function" if _is_function(name) else "procedural"
    shaped = files.suffix(name) or name.endswith("/") or set(name) & set("*?[")
    return "file" if shaped or Path(name).is_file() else "hub"


def _is_function(name: str) -> bool:
    module, _, function = name.partition(":")
    dotted = all(part.isidentifier() for part in module.split("."))
    if module in GENERATORS or not dotted or not function.isidentifier():
        return False
    return "." in module or imported.source_of(name) is not None


_HUB_ONLY = {"subset": "hub datasets", "revision": "hub datasets", "streaming": "hub datasets"}
_MADE = "generators and functions"
_ONE_SPLIT = "datasets with splits; use `evaluation.datasets`"
_REFUSED: dict[Kind, dict[str, str]] = {
    "procedural": _HUB_ONLY,
    "function": _HUB_ONLY | {"eval_split": _ONE_SPLIT},
    "hub": {"params": _MADE},
    **{kind: _HUB_ONLY | {"params": _MADE, "eval_split": _ONE_SPLIT} for kind in FILES},
}
"""Settings that mean nothing for a kind of source, and what they are for."""


def _refuse_settings(dataset: Dataset, kind: Kind) -> None:
    given = dataset.model_dump(exclude_defaults=True)
    for name, purpose in _REFUSED[kind].items():
        if name in given:
            raise ConfigError(
                f"{_called(dataset)}: `{name}` is for {purpose}; remove it from this one"
            )
    if dataset.streaming and (dataset.max_samples is None or dataset.percent != 100):
        raise ConfigError(
            f"{_called(dataset)}: `streaming` reads a part; say how much with `max_samples`"
            + (" and not with `percent`" if dataset.percent != 100 else "")
        )
    if kind not in ("hub", "procedural") and dataset.split != "train":
        raise ConfigError(
            f"{_called(dataset)}: a file is one split, so `split` must be 'train' and not "
            f"{dataset.split!r}; name the file that holds the other split"
        )


def _refuse_directory(dataset: Dataset) -> None:
    """ConfigError for a hub id that is as likely meant for the directory of that name."""
    of_hub = dataset.revision or dataset.subset or dataset.streaming or dataset.split != "train"
    if not of_hub and os.path.isdir(dataset.name):
        raise ConfigError(
            f"{_called(dataset)}: a directory here and datasets on the hub are called like that; "
            f"write ./{dataset.name}/ for the directory, or give `revision: main` for the hub"
        )


def _local(dataset: Dataset, kind: Kind) -> dict[str, Path]:
    """The files that hold the rows, fetched if need be, by what messages call them."""
    if kind == "url":
        fetched = fetch(dataset.name)
        _refuse_splits(public(dataset.name), list(fetched))
        return fetched
    if kind == "file":
        return _files(dataset.name)
    from aligntune.recorded import logged_dataset

    run_id, _, wanted = dataset.name.removeprefix("mlflow:").partition("/")
    with _named(dataset):
        place = promptly(partial(logged_dataset, run_id, wanted), "MLflow is asked")
    inner = _kind(place)
    if inner not in ("file", "url"):
        raise ConfigError(f"{_called(dataset)} is {place!r}; name that instead")
    return _local(dataset.model_copy(update={"name": place}), inner)


def _files(name: str) -> dict[str, Path]:
    """The data files that a path, a directory or a glob names, in the order of their names."""
    path = Path(os.path.expanduser(name)).absolute()
    if path.is_file() and files.suffix(path.name) is None:
        raise ConfigError(
            f"dataset {name!r}: unknown kind of file; its name must end in one of "
            f"{', '.join(files.READERS)}"
        )
    if path.is_file():
        return {path.name: path}
    if path.is_dir():
        found = sorted(path.rglob("*"), key=lambda file: file.as_posix())
        inside = [file for file in found if not _hidden(file, path)]
        what = "is a directory without data files"
    else:
        inside = [Path(match) for match in sorted(glob(str(path), recursive=True))]
        what = "does not exist"
    there = [file for file in inside if file.is_file() and file.name not in _AUXILIARY]
    chosen = [file for file in there if files.suffix(file.name)]
    if not chosen:
        raise ConfigError(
            f"dataset {name!r} {what}; {path} was looked for, and {', '.join(files.READERS)} files"
        )
    names = labels([file.as_posix() for file in chosen])
    _refuse_splits(name, names)
    return dict(zip(names, chosen, strict=True))


def _refuse_splits(name: str, found: Sequence[str]) -> None:
    """ConfigError where the names, below the folder that they share, say that some of the files are
    to be trained on, and others to measure on."""
    told: dict[frozenset[str], str] = {}
    for file in found:
        words = _SPLIT.findall(file.lower())
        if of := frozenset({"tr": "train", "te": "test"}.get(word[:2], "valid") for word in words):
            told.setdefault(of, file)
    if len(told) > 1:
        one, other = list(told.values())[:2]
        raise ConfigError(
            f"dataset {name!r} has different splits, {one} and {other}; name the files of one with "
            "a glob"
        )


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _digest(paths: Mapping[str, Path]) -> str:
    """Of one file its own; of several one over their names and digests, wherever they are."""
    if len(paths) == 1:
        return sha256(*paths.values())
    lines = "".join(f"{sha256(path)}  {name}\n" for name, path in paths.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def _generator(name: str) -> tuple[Generator, str]:
    scheme, _, task = name.partition(":")
    if scheme not in GENERATORS:
        missing = f"there is no module {scheme!r} here, and " if task.isidentifier() else ""
        raise ConfigError(f"dataset {name!r}: {missing}" + unknown("generator", scheme, GENERATORS))
    module = import_module(GENERATORS[scheme])
    return Generator(module.identity, module.rows), task


def _called(dataset: Dataset) -> str:
    return f"dataset {public(dataset.name)!r}"


@contextmanager
def _named(dataset: Dataset) -> Iterator[None]:
    """Puts the dataset's name before a generator's complaint."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{_called(dataset)}: {error}") from error


def _refuse_columns(dataset: Dataset, known: Collection[str]) -> None:
    for new, column in dataset.columns.items():
        if column not in known:
            other_way = f"; it is new name: column, so write {{{column}: {new}}}"
            raise ConfigError(
                f"{_called(dataset)}, `columns`: "
                + unknown("column", column, known)
                + (other_way if new in known else "")
            )


def _renamed(rows: Rows, dataset: Dataset) -> Rows:
    """`rows` with the columns that `dataset.columns` names under their new names."""
    _refuse_columns(dataset, rows.columns)
    columns = _new_names(dataset, rows.columns)
    kept = columns[: -len(dataset.columns)]

    def at(indices: Sequence[int]) -> Iterator[Row | Unreadable]:
        for row in rows.at(indices):
            if isinstance(row, Unreadable):
                yield row
                continue
            same = {name: row[name] for name in kept if name in row}
            yield same | {new: row[old] for new, old in dataset.columns.items() if old in row}

    return replace(rows, columns=columns, at=at)


def _new_names(dataset: Dataset, known: Iterable[str]) -> tuple[str, ...]:
    """The columns as `dataset.columns` has them, those that it names last."""
    moved = {*dataset.columns, *dataset.columns.values()}
    return (*(column for column in known if column not in moved), *dataset.columns)
