"""A whole run, registration and promotion included, that is broken off and started again."""

import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.bench import Ended, Server, drawn
from mlflow import MlflowClient

from aligntune.artifacts import Manifest
from aligntune.journal import FILE

RESUMABLE = 75
CONFIG = """
algo: dpo
model: {name_or_path: MODEL, precision: fp32, max_seq_length: 96}
sft:
  datasets: [{name: "arithmetic:", params: {count: 40, seed: 1}}]
  train: {per_device_batch_size: 4, max_steps: 4, learning_rate: 1e-3}
datasets: [{name: "arithmetic:", params: {count: 40, seed: 2}}]
train: {per_device_batch_size: 4, max_steps: 3, learning_rate: 1e-4}
evaluation: {heldout_fraction: 0.2, max_new_tokens: 4, resamples: 200}
registry: {name: tiny, gates: [{metric: exact_match, min_delta: -0.9}]}
logging: {output_dir: OUTPUT, run_name: tiny, save_steps: 2, eval_steps: 3}
"""
HALF_WRITTEN = re.compile(r"\..+\.new|\.[^/]+\.\d+|tmp[^/]*")


@dataclass
class Whole:
    """A run of several stages, its registry on SQLite, and what it leaves if nobody disturbs it."""

    server: Server
    model: Path
    folder: Path
    tables: Path | None = None
    """A database that has its tables, and nothing in them: to make them takes seconds."""
    expected: Mapping[str, Any] = field(default_factory=dict)
    whole: Ended = field(init=False)
    number: int = 0
    """Of the output directory: a client of MLflow has the database of one that is gone still open,
    and would read that."""

    @property
    def output(self) -> Path:
        return self.folder / f"out-{self.number}"

    @property
    def log(self) -> Path:
        return self.folder / "said.txt"

    def fresh(self, tables: Path | None) -> None:
        """An empty output directory."""
        shutil.rmtree(self.output, ignore_errors=True)
        self.number += 1
        self.log.unlink(missing_ok=True)
        self.output.mkdir(parents=True)
        if tables:
            shutil.copy(tables, self.output / "mlflow.db")

    def play(self, *command: str, **fault: Any) -> Ended:
        if not command:
            config = self.folder / "run.yaml"
            text = CONFIG.replace("MODEL", str(self.model))
            config.write_text(text.replace("OUTPUT", str(self.output)))
            command = ("train", "--config", str(config))
        return self.server.command(command, self.log, self.output, **fault)

    def measure(self) -> None:
        """The undisturbed run."""
        self.fresh(self.tables)
        self.whole = self.play()
        assert self.whole.code == 0, self.log.read_text()[-3000:]
        self.expected = self.left()

    @property
    def finished(self) -> dict[str, bytes]:
        """Stage -> its manifest, which has the times at which it was made."""
        found = (self.output / "stages").glob("*/manifest.json")
        whole = [path for path in found if path.parent.suffix != ".partial"]
        return {path.parent.name: path.read_bytes() for path in whole}

    @property
    def files(self) -> dict[str, str]:
        """Stage and file -> digest, but for files that have times."""
        manifests = {name: Manifest.model_validate_json(m) for name, m in self.finished.items()}
        return {
            f"{stage}/{name}": file.sha256
            for stage, manifest in manifests.items()
            for name, file in manifest.files.items()
            if name != FILE and not name.startswith("tensorboard/")
        }

    @property
    def client(self) -> MlflowClient:
        uri = f"sqlite:///{self.output / 'mlflow.db'}"
        return MlflowClient(uri, uri)

    def runs(self) -> Counter[tuple[str, str]]:
        """How often MLflow has a run of that name and with that status."""
        found: Counter[tuple[str, str]] = Counter()
        for experiment in self.client.search_experiments():
            for run in self.client.search_runs([experiment.experiment_id], max_results=1000):
                found[run.info.run_name, run.info.status] += 1
        return found

    def left(self) -> dict[str, Any]:
        """What a run leaves that must not depend on how often it was broken off."""
        processes = self.server.left()
        client, points = self.client, {}
        for experiment in client.search_experiments():
            for run in client.search_runs([experiment.experiment_id], max_results=1000):
                history = client.get_metric_history(run.info.run_id, "train/loss")
                points[run.info.run_name] = sorted((row.step, row.value) for row in history)
        versions = client.search_model_versions()
        return {
            "stages": sorted(path.name for path in (self.output / "stages").glob("*-*")),
            "files": self.files,
            "runs": self.runs(),
            "points": points,
            "versions": sorted((v.name, v.version, v.tags["aligntune.artifact"]) for v in versions),
            "aliases": client.get_registered_model("tiny.policy").aliases,
            "waiting": sorted(path.name for path in (self.output / "outbox").glob("*/")),
            "half written": [str(p) for p in self.output.rglob("*") if half_written(p)],
            "processes": processes,
        }


def half_written(path: Path) -> bool:
    """Whether a killed process left it in the middle of replacing another."""
    return bool(HALF_WRITTEN.fullmatch(path.name)) or path.suffix == ".partial"


def disturbances(run: Whole, points: int, rng: random.Random, number: int) -> int:
    """The signal `number` at random points of the run, then the same command until it ends: what
    was finished is not done again, and what it leaves is what the undisturbed run leaves. Returns
    how many runs were broken off."""
    early = 0
    for _ in range(points):
        run.fresh(run.tables if rng.random() < 0.75 else None)
        point = drawn(rng, run.whole, number)
        ended = run.play(**point)
        why = f"{signal.Signals(number).name} at {point} of {run.whole.events} events"
        allowed = (0, -number) if number == signal.SIGKILL else (0, RESUMABLE, -number)
        assert ended.code in allowed, f"{why}: {ended} {run.log.read_text()[-3000:]}"
        early += ended.code != 0
        before = run.finished
        if ended.code != 0 and before and rng.random() < 0.5:
            closed(run, why)
        again = run.play()
        assert again.code == 0, f"{why}: {again} {run.log.read_text()[-3000:]}"
        after = run.finished
        repeated = [name for name, manifest in before.items() if after[name] != manifest]
        assert not repeated, f"{why}: {repeated} were made again"
        left = run.left()
        over = len(before) == len(run.expected["stages"])  # so the next is a run of its own
        for name in run.expected.keys() - ({"runs", "points"} if over else set()):
            value = run.expected[name]
            assert left[name] == value, f"{why}: {name}: {left[name]!r}, and not {value!r}"[:3000]
    return early


def closed(run: Whole, why: str) -> None:
    """The next one to look ends the runs whose process is gone."""
    synced = run.play("sync", "--output-dir", str(run.output))
    assert synced.code == 0, f"{why}: {synced} {run.log.read_text()[-3000:]}"
    runs = run.runs()
    over = len(run.finished) == len(run.expected["stages"])  # and only its end was not reached
    assert runs[("tiny", "KILLED")] == 1 or (over and runs[("tiny", "FINISHED")] == 1), (
        f"{why}: {runs}"
    )
    assert not [name for name, status in runs if status == "RUNNING"], f"{why}: {runs}"
