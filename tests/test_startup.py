"""What we stand in for inside of pydantic is what pydantic takes from there, and nothing more."""

import ast
import importlib
import inspect
import sys
from pathlib import Path

import pydantic

from aligntune.startup import LOADER, NO_PLUGINS

MODULE = "_loader"


def taken(source: Path) -> list[str]:
    """What a file of pydantic's imports from that module, with `*` for the module itself."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[-1] == MODULE:
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += ["*" for alias in node.names if alias.name == MODULE]
        elif isinstance(node, ast.Import):
            found += ["*" for alias in node.names if alias.name == LOADER]
    return found


def test_pydantic_takes_one_function_from_the_module_that_is_replaced():
    package = Path(pydantic.__file__).parent
    assert f"pydantic.plugin.{MODULE}" == LOADER
    names = [name for file in package.rglob("*.py") for name in taken(file)]
    assert names == ["get_plugins"], "look at aligntune/startup.py: pydantic has changed"


def test_that_function_gives_the_same_where_plugins_are_turned_off(monkeypatch):
    monkeypatch.delitem(sys.modules, LOADER, raising=False)
    real = importlib.import_module(LOADER)
    assert not inspect.signature(real.get_plugins).parameters
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", NO_PLUGINS)
    assert tuple(real.get_plugins()) == ()
