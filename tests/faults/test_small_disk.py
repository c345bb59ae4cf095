"""A disk of every size that is too small: named with exit 74, and nothing is lost of what was
committed before. The disk is a real one, so it is full for whoever writes, in Python or below it.

FAULT_POINTS and FAULT_SEED play more sizes, or the same ones again; `make faults` plays many.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from faults.bench import BASE, CONFIGS, result

from aligntune.config.load import load
from aligntune.plan import plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(14_400)]

SIZES = min(int(os.environ.get("FAULT_POINTS", "1")), 30)
SEED = int(os.environ.get("FAULT_SEED", str(random.SystemRandom().randrange(10**6))))
NO_SPACE = 74
APART = ["unshare", "--user", "--map-root-user", "--mount"]
SCRIPT = Path(__file__).with_name("small_disk.py")


@pytest.fixture(scope="module", autouse=True)
def _disks():
    made = subprocess.run([*APART, "true"], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.decode()}")


@dataclass(frozen=True)
class Small:
    """A run of one training, and what it leaves on a disk with room enough."""

    config: Path
    output: Path
    expected: Mapping[str, Any]
    files: set[str]
    size: int
    """KiB of all files in the end."""

    def on_disk(self, size: int) -> tuple[int, int, str]:
        """Exit codes on a disk of `size` KiB and once it has room, and what was said."""
        shutil.rmtree(self.copy, ignore_errors=True)
        command = [sys.executable, "-m", "aligntune", "train", "--config", str(self.config)]
        ran = subprocess.run(
            [*APART, sys.executable, SCRIPT, str(self.output), str(size), *command],
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        small, large = json.loads(ran.stdout)
        return small, large, ran.stderr

    @property
    def copy(self) -> Path:
        """Of the disk, which is gone with its process."""
        return self.output.with_name(f"{self.output.name}-copy")

    def made(self) -> Mapping[str, Any]:
        return result(self.copy / "stages", plan(load([self.config], []))["sft"].stage)

    def there(self) -> set[str]:
        """Names of all stages and of what is in them."""
        stages = self.copy / "stages"
        return {str(path.relative_to(stages)) for path in stages.rglob("*")}


@pytest.fixture(scope="module")
def small(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    output, config = folder / "out", folder / "run.yaml"
    output.mkdir()
    text = CONFIGS["sft"] + BASE.replace("MODEL", str(tiny_model)).replace("OUTPUT", str(output))
    config.write_text(text)
    undisturbed = Small(config, output, {}, set(), 0)
    code, _, said = undisturbed.on_disk(1_000_000)
    assert code == 0, said
    files = [path for path in undisturbed.copy.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) // 1024
    return replace(undisturbed, expected=undisturbed.made(), files=undisturbed.there(), size=size)


def test_a_disk_that_is_too_small_is_named_and_loses_nothing(small):
    print(f"FAULT_SEED={SEED}")  # noqa: T201  # shown if the test fails
    rng = random.Random(SEED)
    for _ in range(SIZES):
        size = rng.randint(small.size // 20, small.size * 19 // 20)
        full, after, said = small.on_disk(size)
        why = f"{size} of {small.size} KiB: {said}"
        assert (full, after) == (NO_SPACE, 0), why
        assert "No space left" in said, why
        assert "Traceback" not in said, why
        assert small.made() == small.expected, why
        assert small.there() == small.files, why
