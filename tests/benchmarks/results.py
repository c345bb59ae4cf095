"""What the topics found on one machine, kept between runs of `python -m benchmarks`."""

import dataclasses
import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.figures import Found, read

PACKAGES = ("aligntune-pipeline", "torch", "transformers", "trl", "datasets", "mlflow", "prefect")


@dataclass(frozen=True)
class Result:
    topic: str
    date: str
    """Of its end, 2026-01-31."""
    seconds: float
    """On the clock."""
    found: Found | None
    error: str = ""
    """Why nothing was found."""


@dataclass(frozen=True)
class Results:
    machine: str
    versions: str
    small: bool
    """Sizes that only show that the topics work."""
    results: tuple[Result, ...]

    def with_result(self, result: Result) -> "Results":
        """That of the same topic is replaced, at its place."""
        topics = {each.topic: each for each in self.results} | {result.topic: result}
        return dataclasses.replace(self, results=tuple(topics.values()))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def known(path: Path, *, small: bool) -> Results:
    """What `path` holds, if it was measured here with these versions and sizes; else nothing."""
    here = Results(_machine(), _versions(), small, ())
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return here
    results = tuple(_result(each) for each in kept.pop("results"))
    there = Results(**kept, results=results)
    return there if dataclasses.replace(there, results=()) == here else here


def _result(kept: dict[str, Any]) -> Result:
    found = kept.pop("found")
    return Result(**kept, found=read(json.dumps(found)) if found else None)


def _machine() -> str:
    """ "AMD EPYC 9R14, 2 cores, 24 GiB"."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _versions() -> str:
    found = [f"{name.removesuffix('-pipeline')} {version(name)}" for name in PACKAGES]
    return ", ".join([f"Python {platform.python_version()}", *found])
