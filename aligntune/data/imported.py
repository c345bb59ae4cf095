"""Rows of a function of the user's: `package.module:function`."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aligntune.data.rows import Row
from aligntune.digest import sha256
from aligntune.errors import ConfigError, DataError


def source_of(name: str) -> Path | None:
    """The file that a module is in, or None where there is no such module, or it is built in.

    Looks into the packages that it is in; ConfigError where one cannot be imported.
    """
    module = name.partition(":")[0]
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    except Exception as error:  # code of the user's may raise anything
        raise ConfigError(_failed(name, error)) from error
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


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
    try:
        call = getattr(import_module(module), function)
    except Exception as error:  # code of the user's may raise anything
        raise ConfigError(_failed(name, error)) from error
    if not callable(call):
        raise ConfigError(f"{name} is {type(call).__name__} and not a function")
    _refuse_params(call, params)
    try:
        made = list(call(**params))
    except Exception as error:
        raise DataError(f"{name} failed: {type(error).__name__}: {error}") from error
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


def _failed(name: str, error: Exception) -> str:
    return f"{name} cannot be imported: {type(error).__name__}: {error}"
