"""What commands cost before anything is trained, against what TRL takes to print its help.

PYTHONPATH=tests python -m benchmarks.front_door
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.figures import Figure, Found, in_turns, medians

from aligntune import shipped

BIN = os.path.dirname(sys.executable)
CONFIG = str(shipped.FOLDER / "quickstart.yaml")
GOALS = {"--help": 0.25, "validate": 0.75}


def commands() -> dict[str, tuple[str, ...]]:
    ours, trl = (shutil.which(name, path=BIN) for name in ("aligntune", "trl"))
    if ours is None or trl is None:
        raise SystemExit(f"aligntune and trl have to be installed in {BIN}")
    return {
        "trl --help": (trl, "--help"),
        "--help": (ours, "--help"),
        "validate": (ours, "validate", "--config", CONFIG),
    }


def seconds(bytecode: Path) -> Callable[..., float]:
    """A function of a command: the CPU-seconds of its process, from compiled bytecode.

    An editable install in a place that keeps none would be compiled anew each time, and an
    installed package would not.
    """
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def seconds(*command: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)

    return seconds


def measured(rounds: int) -> Mapping[str, float]:
    """Median CPU-seconds by command."""
    with tempfile.TemporaryDirectory() as folder:
        spent = seconds(Path(folder))
        sides = {name: (lambda command=command: command) for name, command in commands().items()}
        return medians(in_turns(sides, rounds, lambda command: spent(*command())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    rounds = 3 if parser.parse_args().small else 25
    took = measured(rounds)
    figures = [
        Figure(
            what=f"aligntune {name}, CPU time",
            ours=took[name],
            peer=took["trl --help"],
            unit="s",
            against="trl --help",
            goal=goal,
            at_most=True,
        )
        for name, goal in GOALS.items()
    ]
    Found(figures, setup={"config": "quickstart.yaml", "rounds": str(rounds)}).print()


if __name__ == "__main__":
    main()
