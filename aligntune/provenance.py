"""Which code ran, on whose behalf: for manifests, model cards and MLflow's tags."""

import getpass
import platform
import subprocess
from importlib.metadata import distributions, version
from pathlib import Path

ENVIRONMENT = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "mlflow")


def environment() -> dict[str, str]:
    """Exact versions of what computes."""
    versions = {name: version(name) for name in ENVIRONMENT}
    own = {"aligntune": version("aligntune-pipeline"), "python": platform.python_version()}
    checkout = Path(__file__).parent.parent
    found = _commit(checkout) if (checkout / ".git").exists() else ""
    return own | versions | ({"git": found} if found else {})


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
    names = {found.metadata["Name"]: found.version for found in distributions()}
    return "".join(f"{name}=={names[name]}\n" for name in sorted(names, key=str.lower))


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
