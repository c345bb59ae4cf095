"""YAML in, `RunConfig` out. The only place that reads a config file or an override.

Local paths in a config stay as they are written: like the paths on a command line they are
relative to the directory that the command runs in, not to the config file.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from aligntune.config import rules
from aligntune.config.document import read_document
from aligntune.config.environment import refers
from aligntune.config.naming import KeyPath
from aligntune.config.problems import Place, empty_sections, explain, together
from aligntune.config.run import RunConfig
from aligntune.config.schedule_rules import set_problems
from aligntune.config.secrets import secret_problems
from aligntune.config.settings import Settings
from aligntune.errors import ConfigError

if TYPE_CHECKING:
    from aligntune.config.repair import Repair


Check = Callable[[RunConfig], Iterable[rules.Problem]]


@dataclass(frozen=True)
class Loaded:
    config: RunConfig
    repairs: tuple["Repair", ...]
    """What was not read as it stands, file by file."""
    places: Mapping[KeyPath, Place]
    """Where each key was set last; its keys are what was given. `()` is the last file's top."""


def load(paths: Sequence[Path], overrides: Sequence[str] = ()) -> RunConfig:
    """The config that the files make together, later ones over earlier ones, then `a.b=value`s.

    Sections merge key by key; lists and plain values are replaced whole. `${NAME}` in a value is
    the environment's variable. `logging.run_name` is the last file's name where none is given.
    Everything wrong comes in one ConfigError, a line each.
    """
    return read(paths, overrides).config


def read(
    paths: Sequence[Path], overrides: Sequence[str] = (), also: Check = lambda config: ()
) -> Loaded:
    """What `load` gives, with where each setting was made and what had to be repaired.

    What `also` finds wrong comes together with the contradictions of the config.
    """
    if not paths:
        raise ConfigError("no config file given; name at least one")
    settings = Settings({}, {})
    repairs: list[Repair] = []
    for index, path in enumerate(paths):
        document = read_document(path)
        settings = settings.merged(document, index)
        repairs += document.repairs
    for index, override in enumerate(overrides, start=len(paths)):
        settings = settings.overridden(override, index)
    config = _named(_validated(settings, also), paths[-1].stem)
    return Loaded(config, tuple(repairs), settings.places)


def check_more(paths: Sequence[Path], overrides: Sequence[str], more: Sequence[str]) -> None:
    """Whether `more` overrides make a config wrong that is right without them.

    Where it is not right here, or cannot be read, that is not known: its files and its variables
    may be those of another machine. So may the variables that an override refers to.

    Raises:
        ConfigError: they do.
    """
    try:
        read(paths, overrides)
    except ConfigError:
        return
    read(paths, [*overrides, *(each for each in more if not refers(each))])


def _validated(settings: Settings, also: Check) -> RunConfig:
    if secrets := [rules.Problem(*each) for each in secret_problems(settings.values)]:
        raise together(secrets, {path: _discreet(at) for path, at in settings.places.items()})
    config = _right(settings, also)

    def tried(overrides: Sequence[str]) -> None:
        changed = settings
        for index, override in enumerate(overrides, start=len(settings.places)):
            changed = changed.overridden(override, index)
        _right(changed, lambda config: ())

    if found := list(set_problems(config, tried)):
        raise together([rules.Problem(*problem) for problem in found], settings.places)
    return config


def _discreet(place: Place) -> Place:
    """`place` without the value that an override sets."""
    if not place.label.startswith("--"):
        return place
    end = "=" if place.label.startswith("--set ") else " "
    return place._replace(label=place.label.partition(end)[0])


def _right(settings: Settings, also: Check) -> RunConfig:
    try:
        config = RunConfig.model_validate(settings.values)
    except ValidationError as error:
        raise explain(error, settings.values, settings.places) from None
    empty = empty_sections(settings.values, settings.places)
    if problems := [*empty, *rules.problems(config), *also(config)]:
        raise together(problems, settings.places)
    return config


def _named(config: RunConfig, stem: str) -> RunConfig:
    if config.logging.run_name is not None:
        return config
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:64] or "run"
    logging = config.logging.model_copy(update={"run_name": name})
    return config.model_copy(update={"logging": logging})
