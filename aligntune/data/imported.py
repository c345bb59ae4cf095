"""Rows of a function of the user's: `package.module:function`."""

import hashlib
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
    """The file that a module is in, or None where there is no such module."""
    try:
        spec = find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        spec = None
    return Path(spec.origin) if spec and spec.origin else None


def identity(name: str, params: Mapping[str, Any]) -> str:
    """A digest of the module's source and the params; what it reads besides is not seen."""
    source = source_of(name)
    if source is None:
        module = name.partition(":")[0]
        raise ConfigError(f"there is no module {module!r} on the Python path")
    told = f"{name} {sha256(source)} {json.dumps(params, sort_keys=True)}"
    return hashlib.sha256(told.encode()).hexdigest()


def rows(name: str, params: Mapping[str, Any]) -> list[Row]:
    """What the function yields.

    Raises:
        ConfigError: there is no such function, or it does not take the params.
        DataError: it fails, or yields what is no dict.
    """
    module, _, function = name.partition(":")
    try:
        call = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name} cannot be imported: {error}") from error
    try:
        made = list(call(**params))
    except Exception as error:  # code of the user's may raise anything
        raise DataError(f"{name} failed: {type(error).__name__}: {error}") from error
    for number, row in enumerate(made, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{name}: item {number} is {type(row).__name__}; yield dicts")
    return made
