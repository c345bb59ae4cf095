"""What keeps commands short that only read: `validate` spent a quarter of its time on these."""

import gc
import os
import sys
from types import ModuleType

OBJECTS = 100_000
"""`validate` makes a third of them; what trains makes many times as many."""
NO_PLUGINS = "__all__"
LOADER = "pydantic.plugin._loader"
"""A private module of pydantic; tests/test_startup.py says what is relied on."""


def quick() -> None:
    """Look neither for garbage nor for plugins of pydantic before there is any."""
    _collect_later()
    _without_plugins()


def see_here() -> None:
    """Find rewards and data of one's own in the current directory, but after all packages: a file
    here hides none of them, as it would with `python -m`."""
    sys.path.append("")


def ended() -> None:
    """Leave what a short command has made to the system, which takes all of it back at once."""
    if gc.get_threshold()[0] == OBJECTS:
        gc.freeze()


def _collect_later() -> None:
    """Look for garbage after so many objects, and from then on as usual: imports make none."""
    usual = gc.get_threshold()

    def as_usual(phase: str, _: object) -> None:
        if phase == "stop":
            gc.set_threshold(*usual)
            gc.callbacks.remove(as_usual)

    gc.set_threshold(OBJECTS)
    gc.callbacks.append(as_usual)


def _without_plugins() -> None:
    """Keep pydantic from looking through every installed package for other validators.

    Where that is turned off it still loads what it would look with, for longer than it takes to
    build all sections of a config; so it finds its answer in place of that module.
    """
    if os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", NO_PLUGINS) != NO_PLUGINS:
        return
    none = ModuleType(LOADER)
    none.__dict__["get_plugins"] = tuple
    sys.modules.setdefault(none.__name__, none)
