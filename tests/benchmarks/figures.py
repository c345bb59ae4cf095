"""What a benchmark finds, and how two sides are measured fairly.

Goals are ratios of two sides in one run, never absolute times: the sides take turns in one process
on one thread, in CPU-seconds of this process, and their medians are compared.
"""

import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

TOLERANCE = 0.15
"""By which a ratio may miss its goal: smaller differences are not resolved on a shared machine."""


@dataclass(frozen=True)
class Figure:
    """Ours against a peer, or against a limit."""

    what: str
    """"SFT, padded tokens per CPU-second"."""
    ours: float
    peer: float
    unit: str
    against: str
    """Who or what the peer is: "TRL's default"."""
    goal: float
    """Of `ours / peer`."""
    at_most: bool
    """Whether the ratio may at most be the goal, or has to be at least that."""
    note: str = ""
    """What limits it, and why it falls short where it does."""
    limit: str = ""
    """The best that is possible here, where that was measured or is known: "0.69: click, yaml and
    one pydantic model"."""

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    @property
    def met(self) -> bool:
        if self.at_most:
            return self.ratio <= self.goal * (1 + TOLERANCE)
        return self.ratio >= self.goal * (1 - TOLERANCE)


@dataclass(frozen=True)
class Curve:
    """How time or memory grows: one line of a plot."""

    what: str
    """"Data stage"; curves with the same `what` and `unit` share a plot."""
    line: str
    sizes: tuple[float, ...]
    values: tuple[float, ...]
    of: str
    """What the sizes count: "rows"."""
    unit: str


@dataclass(frozen=True)
class Profile:
    """Where the time of one step goes, in CPU-seconds by part."""

    what: str
    """"GRPO step"."""
    before: Mapping[str, float]
    """With every optimisation off: the peer's."""
    after: Mapping[str, float]


@dataclass(frozen=True)
class Found:
    figures: Sequence[Figure] = ()
    curves: Sequence[Curve] = ()
    profiles: Sequence[Profile] = ()
    setup: Mapping[str, str] = field(default_factory=dict)
    """What it was measured on: model, lengths, batch, rounds."""

    def print(self) -> None:
        """One line of JSON on standard output, which is how a topic tells the table."""
        sys.stdout.write(json.dumps(dataclasses.asdict(self)) + "\n")


def read(line: str) -> Found:
    """What `Found.print` wrote."""
    found = json.loads(line)
    curves = [
        Curve(**each | {"sizes": tuple(each["sizes"]), "values": tuple(each["values"])})
        for each in found["curves"]
    ]
    return Found(
        [Figure(**each) for each in found["figures"]],
        curves,
        [Profile(**each) for each in found["profiles"]],
        found["setup"],
    )


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process in `work`, all threads."""
    began = time.process_time()
    work()
    return time.process_time() - began


def children_seconds(command: list[str]) -> float:
    """CPU time of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ended with {done.returncode}:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def on_the_clock(work: Callable[[], object]) -> float:
    """Seconds that pass in `work`: for what waits, or is done by the system."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    measure: Callable[[Callable[[], object]], float] = cpu_seconds,
) -> dict[str, list[float]]:
    """What `measure` says of each side in every round, after one round that does not count.

    A busy moment of the machine spoils one round of all sides, not all rounds of one.
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, work in sides.items():
            spent = measure(work)
            if number:
                taken[name].append(spent)
    return taken


def medians(taken: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in taken.items()}
