"""Where a run's files are, and which servers it talks to."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from aligntune.config.run import RunConfig
from aligntune.errors import ConfigError, public


@dataclass(frozen=True)
class Paths:
    root: Path
    """`logging.output_dir`, absolute."""
    run: Path
    """Links to this run's stages, its config, plan and report."""

    @classmethod
    def of(cls, config: RunConfig) -> "Paths":
        root = Path(os.path.expanduser(config.logging.output_dir)).absolute()
        return cls(root, root / "runs" / (config.logging.run_name or config.algo))

    @property
    def stages(self) -> Path:
        """The artifacts, shared by all runs below this root."""
        return self.root / "stages"


def nearest(output_dir: str) -> Path:
    """The directory itself, or the nearest one above it that there is.

    Raises:
        ConfigError: a run could not write there.
    """
    if "://" in output_dir:
        raise ConfigError(
            f"{public(output_dir)!r} is an address, and runs write to a directory of this machine; "
            "name one"
        )
    wanted = Path(os.path.expanduser(output_dir)).absolute()
    there = next(path for path in (wanted, *wanted.parents) if os.path.exists(path))
    if not there.is_dir():
        raise ConfigError(f"{there} is a file; name a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{there} may not be written to; give access, or name another directory")
    return there


class Place(NamedTuple):
    """A registry, and the output directory of the runs that filled it."""

    uri: str
    root: Path


SQLITE = "sqlite:///"
EXPERIMENT = "aligntune"
BY_ID = "id "
LONGEST = 200
"""Characters of a setting that an error repeats."""


def is_file(text: str) -> bool:
    """Whether that is a file; a text that no file can be called is none."""
    return os.path.isfile(os.path.expanduser(text))


def tracking_uri(root: Path) -> str:
    """MLflow's store: `MLFLOW_TRACKING_URI`, or SQLite below the output directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{root / 'mlflow.db'}"


def database_file(uri: str) -> Path | None:
    """The file of a store that is one; none where it is in memory, or SQLite itself reads what it
    is from a URI."""
    name, _, options = uri.removeprefix(SQLITE).partition("?")
    if not uri.startswith(SQLITE) or name in ("", ":memory:") or "uri=" in options:
        return None
    return Path(name).resolve()


def tracking_identity() -> str:
    """What identifies the registry in a stage key: no password, and no path for the default."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return "local"
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def one_registry(store: str) -> None:
    """That models are registered where runs are: what a version came from is there.

    Raises:
        ConfigError: the environment names another registry.
    """
    wanted = os.environ.get("MLFLOW_REGISTRY_URI")
    if not wanted or public(wanted).rstrip("/") == public(store).rstrip("/"):
        return
    file = database_file(wanted)
    if file is None or file != database_file(store):
        raise ConfigError(
            "MLFLOW_REGISTRY_URI is another store than that of the runs, and models are registered "
            "where runs are; unset it, or set MLFLOW_TRACKING_URI to the same"
        )


def experiment_name() -> str:
    """MLflow's experiment for what runs in this environment; `BY_ID` and its id where only that is
    known."""
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or (f"{BY_ID}{given}" if given else EXPERIMENT)


def hub_endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
