"""What it costs to remember: MLflow beside a run, its metrics, and a model in its store.

PYTHONPATH=tests python -m benchmarks.tracking
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.figures import (
    Figure,
    Found,
    children_seconds,
    cpu_seconds,
    in_turns,
    medians,
    on_the_clock,
)

RUN = 300.0
"""CPU-seconds of a short training run."""
ROWS, METRICS = 100, 10
STORE = "here"
WEIGHTS = 541_000_000
"""Bytes of SmolLM2-135M in fp32."""


def metrics() -> dict[str, float]:
    return {f"train/metric-{number}": 0.5 * number for number in range(METRICS)}


@contextmanager
def stage(root: Path, key: str) -> Iterator[Callable[[Iterable[int]], None]]:
    """A stage that is running, as the outbox sees it: yields what writes the metrics of steps,
    which have to have arrived at its end."""
    from aligntune.artifacts import WORK, partial
    from aligntune.journal import FILE, Journal
    from aligntune.outbox import Outbox, continued, new_record

    outbox, out = Outbox(root), partial(root / "stages", "sft", key)
    fresh = new_record(role="stage", name="sft", store=STORE, artifact=f"sft-{key}")
    record, journal = continued(outbox, out / WORK, fresh), Journal(out / FILE)

    def write(steps: Iterable[int]) -> None:
        for step in steps:
            journal.write(step, metrics())

    with outbox.owned(record):
        yield write
        arrived = outbox.sent(record.id).offsets["metrics"]
        if arrived != (out / FILE).stat().st_size:
            raise SystemExit("not all metrics have arrived")


@dataclass(frozen=True)
class Beside:
    """CPU-seconds of MLflow beside a run."""

    imported: float
    created: float
    """To make its database, once per output directory, in a process that imports it too."""
    connected: float
    """To say that a stage runs."""
    round: float
    """To deliver what one more step has brought."""
    total: float
    """In a run of five minutes whose output directory has had a run before."""


CREATE = """
import sys
from pathlib import Path
from aligntune.track import connect

connect(sys.argv[1], Path(sys.argv[2]))
"""


def beside(root: Path) -> Beside:
    uri = f"sqlite:///{root / 'mlflow.db'}"
    created = children_seconds([sys.executable, "-c", CREATE, uri, str(root)])
    began = time.process_time()
    from aligntune.courier import _EVERY, _REST, _SHARE, Courier

    imported = time.process_time() - began
    rounds = []
    with stage(root, "abc") as write:
        courier = Courier(uri, root, STORE)
        connected = cpu_seconds(courier.round)
        for step in range(20):
            write([step])
            rounds.append(cpu_seconds(courier.round))
    each = median(rounds)
    every = max(_EVERY, min(_REST, _SHARE * each)) + each
    return Beside(imported, created, connected, each, imported + connected + each * RUN / every)


def points(root: Path, rounds: int) -> dict[str, float]:
    """CPU-seconds of a thousand metrics from a journal, and one by one as `log_metric` has them."""
    from aligntune.courier import Courier
    from aligntune.store import client_of
    from aligntune.track import experiment

    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = client_of(uri)
    run = client.create_run(experiment(client, uri, root)).info.run_id
    courier = Courier(uri, root, STORE)
    numbers = iter(range(1000))

    def ours() -> float:
        with stage(root, f"key{next(numbers)}") as write:
            courier.round()
            write(range(ROWS))
            return cpu_seconds(courier.round)

    def theirs() -> float:
        """A tenth of them, times ten."""
        first = next(numbers)

        def log() -> None:
            for step in range(ROWS // 10):
                for name, value in metrics().items():
                    client.log_metric(run, f"{first}/{name}", value, step=step)

        return 10 * cpu_seconds(log)

    return medians(in_turns({"ours": ours, "mlflow": theirs}, rounds, lambda side: side()))


def model(root: Path, size: int, rounds: int) -> dict[str, float]:
    """Seconds on the clock of a model directory that enters a local artifact store."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    from aligntune.artifacts import linked

    folder = root / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(1 << 20) * (size >> 20))
    (folder / "config.json").write_text("{}")
    target = root / "store"

    def ours() -> None:
        shutil.copytree(folder, target, copy_function=linked, dirs_exist_ok=True)

    def theirs() -> None:
        LocalArtifactRepository(str(target)).log_artifacts(str(folder))

    def fresh(side: Callable[[], None]) -> float:
        shutil.rmtree(target, ignore_errors=True)
        return on_the_clock(side)

    return medians(in_turns({"ours": ours, "mlflow": theirs}, rounds, fresh))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    rounds, size = (1, 1 << 24) if small else (5, WEIGHTS)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        mlflow = beside(root / "run")
        thousand = points(root / "run", rounds)
        stored = model(root, size, rounds)
    note = (
        f"Its import takes {mlflow.imported:.1f} s, its first words {mlflow.connected:.1f} s, and "
        f"each of at most 60 looks for news {1000 * mlflow.round:.0f} ms; with a new output "
        f"directory a database is made, {max(0.0, mlflow.created - mlflow.imported):.1f} s once"
    )
    found = [
        Figure("MLflow beside a run of five minutes, CPU time", mlflow.total, RUN, "s",
               "the run itself", 0.01, True, note,
               f"{mlflow.imported / RUN:.4f}: the import alone"),
        Figure("1,000 metrics to SQLite, CPU time", thousand["ours"], thousand["mlflow"], "s",
               "log_metric 1,000 times", 0.05, True),
        Figure(f"a model of {size / 1e6:.0f} MB into the local store", stored["ours"],
               stored["mlflow"], "s", "log_artifacts", 0.1, True),
    ]  # fmt: skip
    Found(found, setup={"metrics": f"{METRICS} per step", "rounds": str(rounds)}).print()


if __name__ == "__main__":
    main()
