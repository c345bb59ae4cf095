"""Rows of a function of the user's: `package.module:function`."""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from aligntune.data.rows import Row
from aligntune.digest import sha256
from aligntune.errors import AlignTuneError, ConfigError, DataError, Interrupted
from aligntune.exits import staying
from aligntune.interrupt import asked_to_stop

T = TypeVar("T")
_IMPORT = "cannot be imported"


def source_of(name: str) -> Path | None:
    """The file that a module is in, or None where there is no such module, or it is built in.

    Looks into the packages that it is in; ConfigError where one cannot be imported.
    """
    spec = _theirs(lambda: _spec(name.partition(":")[0]), ConfigError, f"{name} {_IMPORT}")
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _spec(module: str) -> ModuleSpec | None:
    try:
        return find_spec(module)
    except (ImportError, ValueError):
        return None


def identity(name: str, params: Mapping[str, Any]) -> str:
    """A digest of the module's source and the params; what it reads besides is not seen."""
    source = source_of(name)
    if source is None:
        module = name.partition(":")[0]
        raise ConfigError(f"there is no module {module!r} on the Python path")
    given = json.dumps(params, sort_keys=True, default=repr)
    return hashlib.sha256(f"{name} {sha256(source)} {given}".encode()).hexdigest()


def rows(name: str, params: Mapping[str, Any]) -> list[Row]:
    """What the function yields.

    Raises:
        ConfigError: there is no such function, or it does not take the params.
        DataError: it fails, or yields what is no dict.
    """
    module, _, function = name.partition(":")
    call = _theirs(
        lambda: getattr(import_module(module), function), ConfigError, f"{name} {_IMPORT}"
    )
    if not callable(call):
        raise ConfigError(f"{name} is {type(call).__name__} and not a function")
    _refuse_params(call, params)
    made: list[Any] = _theirs(
        lambda: list(_until_stopped(call(**params))), DataError, f"{name} failed"
    )
    for number, row in enumerate(made, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{name}: item {number} is {type(row).__name__}; yield dicts")
        if not all(isinstance(column, str) for column in row):
            raise DataError(f"{name}: item {number} has a column whose name is not text")
    return made


def _refuse_params(call: Any, params: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(call)
    except ValueError:  # written in C
        return
    try:
        signature.bind(**params)
    except TypeError as error:
        raise ConfigError(f"params: {error}; the function takes {signature}") from error


def _until_stopped(made: Iterable[T]) -> Iterator[T]:
    """What is made, which may take hours to be downloaded."""
    stopping = asked_to_stop()
    for row in made:
        if stopping():
            raise Interrupted("stopped while rows are made; the same command makes them anew")
        yield row


def _theirs(work: Callable[[], T], kind: type[AlignTuneError], failed: str) -> T:
    """What code of the user's gives, which may raise anything, and exit."""
    try:
        return staying(work)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:
        raise kind(f"{failed}: {type(error).__name__}: {error}") from error
