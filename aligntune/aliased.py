"""Who holds an alias in a registry that is a file of this machine, read without MLflow: importing
that takes longer than all the rest of a plan.

Only what decides about the stages of a run is read here, and only where the file is as MLflow makes
it; else MLflow is asked.
"""

import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from aligntune.paths import database_file

KEY = "aligntune.key"
AGAINST = "aligntune.decision.against"
"""What a version was decided against, as JSON {version, key}; nothing for the base model."""

_VERSION = """
    SELECT version.version, version.source
    FROM registered_model_aliases AS alias JOIN model_versions AS version
        ON version.workspace = alias.workspace AND version.name = alias.name
        AND version.version = alias.version
    WHERE alias.workspace = 'default' AND alias.name = ? AND alias.alias = ?
        AND version.current_stage <> 'Deleted_Internal'
"""
_TAGS = """
    SELECT key, value FROM model_version_tags
    WHERE workspace = 'default' AND name = ? AND version = ?
"""


class Unreadable(Exception):
    """Only MLflow knows."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model, as far as it decides what a run does."""

    number: str
    source: str
    tags: Mapping[str, str]

    @property
    def key(self) -> str:
        """What identifies its content: its stage's key, or its source if that is not ours."""
        return self.tags.get(KEY) or self.source

    def opponent(self, candidate: str) -> tuple[str, str] | None:
        """Version and key of what the stage with the key `candidate` has to be compared with, if
        this is the champion: that, or, where the candidate itself has become it, what it was
        decided against."""
        if self.tags.get(KEY) != candidate:
            return self.number, self.key
        earlier = json.loads(self.tags.get(AGAINST) or "null")
        return (earlier["version"], earlier["key"]) if earlier else None


def holder(uri: str, name: str, alias: str) -> Version | None:
    """The version that has an alias; None where there is none, or no such file or model.

    Raises:
        Unreadable: the store is no file, or is laid out or used in another way than is known here.
    """
    file = database_file(uri)
    if file is None or os.environ.get("MLFLOW_WORKSPACE"):
        raise Unreadable
    if not file.exists():
        return None
    try:
        with closing(sqlite3.connect(file.as_uri() + "?mode=ro", uri=True)) as store:
            found = store.execute(_VERSION, (name, alias)).fetchone()
            tags = dict(store.execute(_TAGS, (name, found[0]))) if found else {}
    except sqlite3.Error as error:
        raise Unreadable from error
    return Version(str(found[0]), str(found[1]), tags) if found else None
