"""The configs and rewards that come with the package."""

from pathlib import Path

from aligntune.errors import ConfigError, unknown

_PACKAGE = Path(__file__).parent
FOLDER = next(
    (path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir()),
    _PACKAGE / "configs",
)
"""In the package once installed, else in the checkout."""


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def text(name: str) -> str:
    """The file called `name`. ConfigError if there is none."""
    if name not in names():
        raise ConfigError(unknown("config", name, names()))
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def summaries() -> dict[str, str]:
    """Name -> what its second line says; the first is the command that runs it."""
    return {name: text(name).splitlines()[1].removeprefix("# ") for name in names()}


def rewards() -> dict[str, str]:
    """Name -> what a built-in reward says of an answer."""
    from aligntune.rewards import REWARDS

    return {name: known.says for name, known in REWARDS.items()}
