"""Which code ran, on whose behalf: for manifests, model cards and MLflow's tags."""

import getpass
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import Distribution, distributions, version
from pathlib import Path

from aligntune.digest import sha256

LOCK = "ALIGNTUNE_LOCK"
"""The variable that names the lock which an image was installed from."""
ENVIRONMENT = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "mlflow")


def environment() -> dict[str, str]:
    """Exact versions of what computes."""
    versions = _versions()
    own = {"aligntune": version("aligntune-pipeline"), "python": platform.python_version()}
    lock = Path(os.environ.get(LOCK, ""))
    if lock.is_file():
        own["lock"] = sha256(lock)
    checkout = Path(__file__).parent.parent
    found = _commit(checkout) if (checkout / ".git").exists() else ""
    return own | versions | ({"git": found} if found else {})


# What is loaded does not change while the process lives, and every stage asks.
@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ENVIRONMENT}


def tags() -> dict[str, str]:
    """The same under the names that MLflow has for it, with versions as `version.<package>`.

    The commit is that of the repository that the working directory is in, where configs and
    rewards of one's own are; ours is `aligntune.git`.
    """
    versions = environment()
    ours = versions.pop("git", "")
    found = {
        "mlflow.source.name": "aligntune",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": _commit(Path.cwd()),
        "mlflow.user": _user(),
        "aligntune.git": ours,
        "aligntune.host": platform.node(),
    }
    told = {name: value for name, value in found.items() if value}
    return told | {f"version.{name}": value for name, value in versions.items()}


def installed() -> str:
    """Every distribution, as a requirements file."""
    names = dict(map(_named, distributions()))
    return "".join(f"{name}=={names[name]}\n" for name in sorted(names, key=str.lower))


def _named(distribution: Distribution) -> tuple[str, str]:
    """Name and version, from the two lines that say them: parsing what follows, often a README,
    takes ten times as long for all that is installed."""
    lines = (distribution.read_text("METADATA") or "").partition("\n\n")[0].splitlines()
    fields = dict(line.split(": ", 1) for line in lines if line.startswith(("Name: ", "Version: ")))
    if len(fields) == 2:
        return fields["Name"], fields["Version"]
    return distribution.metadata["Name"], distribution.version


@cache
def _commit(folder: Path) -> str:
    """The commit that is checked out there, or nothing."""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as containers have
        return ""
