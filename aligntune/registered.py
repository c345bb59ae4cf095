"""Models of an MLflow registry by name: `models:/name@alias` and `models:/name/version`."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from aligntune.errors import ConfigError
from aligntune.paths import one_registry

NAME = re.compile(r"models:/([^/@]+)(?:/([0-9]+)|@([^/@]+))")

AGAIN = "run the same command again when it answers"
_MISSING = "{!r} is not in the model registry; look at MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Registered:
    name: str
    version: str
    source: str
    """Where its files are."""

    @property
    def digest(self) -> str:
        """Of the place, so that another registry's version of the same number is another model."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:12]


def parts(name: str) -> tuple[str, str | None, str | None]:
    """(model, version, alias), one of the latter None. ConfigError for what is no such name."""
    found = NAME.fullmatch(name)
    if found is None:
        raise ConfigError(
            f"{name!r} names no registered model; write `models:/name@alias` or "
            "`models:/name/version`"
        )
    return found[1], found[2], found[3]


def registered(name: str, uri: str) -> Registered:
    """The version that `name` means now in the registry at `uri`.

    Raises:
        ConfigError: it is no such name, there is no such model, version or alias, or the
            environment names another registry.
        ServiceError: the registry cannot be reached.
    """
    from aligntune.store import asking, client_of

    model, number, alias = parts(name)
    one_registry(uri)
    with asking(AGAIN, _MISSING.format(name)):
        client = client_of(uri)
        version = (
            client.get_model_version(model, number)
            if number
            else client.get_model_version_by_alias(model, alias)
        )
    return Registered(model, str(version.version), str(version.source))


def download(name: str, uri: str, into: Path) -> None:
    """The files of a registered model in the directory `into`, whatever was there.

    Raises:
        ConfigError: as `registered`, and where its files are gone.
        DataError: they are not those that it was registered with.
        ServiceError: as `registered`.
    """
    import shutil

    from mlflow.artifacts import download_artifacts

    from aligntune.checksums import unwrapped
    from aligntune.store import asking

    version, loaded = registered(name, uri), into.with_name(f"{into.name}.download")
    for folder in (into, loaded):
        shutil.rmtree(folder, ignore_errors=True)
    loaded.mkdir(parents=True)
    gone = (
        f"the files of {name!r} are not in {version.source}; put them back, or name another "
        "version (`aligntune rollback`, or `aligntune promote --version N` with --force and "
        "--reason, replaces a champion)"
    )
    with asking(AGAIN, gone):
        # It has the name there that it has in the store.
        folder = download_artifacts(version.source, dst_path=str(loaded), tracking_uri=uri)
    Path(folder).rename(into)
    shutil.rmtree(loaded, ignore_errors=True)
    unwrapped(into, name)
    if not (into / "config.json").is_file():
        raise ConfigError(f"{name} holds no model directory with a config.json; name another one")


def paper(source: str, name: str, uri: str) -> bytes | None:
    """A small file beside a registered model's, from the place that the registry names; None where
    there is none.

    Raises:
        ServiceError: the registry cannot be reached.
    """
    import tempfile

    from mlflow.artifacts import download_artifacts, list_artifacts

    from aligntune.store import asking

    asked = asking(AGAIN, _MISSING.format(source))
    with tempfile.TemporaryDirectory(prefix="aligntune-") as place, asked:
        # An S3 store answers with an error of its own where a file is not there.
        there = list_artifacts(artifact_uri=source, tracking_uri=uri)
        if name not in {Path(entry.path).name for entry in there}:
            return None
        found = download_artifacts(f"{source.rstrip('/')}/{name}", dst_path=place, tracking_uri=uri)
        return Path(found).read_bytes()
