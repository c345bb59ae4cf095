"""Packages that a plain installation does not have: the extras of pyproject.toml."""

from importlib.util import find_spec

from aligntune.errors import ConfigError


def require(what: str, package: str, extra: str) -> None:
    """Raise ConfigError where `package`, which `what` cannot do without, is not installed."""
    if find_spec(package.replace("-", "_")) is None:
        raise ConfigError(
            f"{what} needs the package {package}; `pip install 'aligntune-pipeline[{extra}]'`"
        )
