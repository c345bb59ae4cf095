"""Nothing older than what SECURITY.md gives reasons against, and bills of what the images have."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ("build", "servers", "worker", "torch-gpu", "torch-cpu")
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", re.MULTILINE)


def floors():
    rows = re.findall(
        r"^\| `([\w-]+)` \| ([\d.]+) \| (.+) \|$", (ROOT / "SECURITY.md").read_text(), re.M
    )
    assert {name for name, *_ in rows} >= {"torch", "transformers", "mlflow", "prefect"}
    assert all(re.search(r"CVE-\d{4}-\d{4,}", why) for *_, why in rows)
    return {name: Version(floor) for name, floor, _ in rows}


def pinned(text):
    return {canonicalize_name(name): Version(version) for name, version in PINNED.findall(text)}


def requirements():
    listed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["servers"]]
    return [Requirement(text) for text in listed]


def test_pip_is_told_the_floors():
    wanted = floors()
    told = set()
    for requirement in requirements():
        if requirement.name in wanted:
            told.add(requirement.name)
            least = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
            assert max(least) >= wanted[requirement.name], requirement
    assert told == wanted.keys()


@pytest.mark.parametrize("name", ["constraints.txt", *(f"infra/lock/{lock}.txt" for lock in LOCKS)])
def test_what_is_pinned_is_above_the_floors_and_what_the_project_wants(name):
    found = pinned((ROOT / name).read_text())
    assert found
    for package, floor in floors().items():
        assert found.get(package, floor) >= floor, package
    for requirement in requirements():
        version = found.get(canonicalize_name(requirement.name))
        assert version is None or version in requirement.specifier, requirement


@pytest.mark.parametrize(
    ("image", "locks", "elsewhere"),
    [
        ("worker-gpu", ("worker", "torch-gpu"), set()),
        ("servers", ("servers",), {"async-timeout", "pywin32", "waitress", "whenever"}),
    ],
)
def test_an_images_bill_has_every_distribution_of_its_locks(image, locks, elsewhere):
    made = subprocess.run(
        [sys.executable, ROOT / "infra" / "sbom.py", image],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    parts = json.loads(made.stdout)["components"]
    listed = {canonicalize_name(part["name"]): Version(part["version"]) for part in parts}
    wanted = {}
    for lock in locks:
        wanted |= pinned((ROOT / "infra" / "lock" / f"{lock}.txt").read_text())
    assert listed == {name: wanted[name] for name in wanted.keys() - elsewhere}
    assert all(part["hashes"] and part["purl"] for part in parts)
