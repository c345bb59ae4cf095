"""Short runs one after another in one output directory, each with a fault and its recovery."""

import fcntl
import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faults.bench import Ended, Server
from faults.whole import half_written

from aligntune.afterwards import LOGGED

CONFIG = """
algo: sft
model: {name_or_path: MODEL, precision: fp32, max_seq_length: 96}
datasets: [{name: "arithmetic:", params: {count: 24, seed: 2}}]
train: {per_device_batch_size: 4, max_steps: 4, learning_rate: 1e-3}
evaluation: {heldout_fraction: 0.2, max_new_tokens: 2, resamples: 100}
registry: {enabled: false}
logging: {output_dir: OUTPUT, save_steps: 1, eval_steps: 2, loggers: none}
"""
OK, NO_SPACE, RESUMABLE, DIVERGED = 0, 74, 75, 79
KILLED, TERMED = -signal.SIGKILL, -signal.SIGTERM
OURS = ("stages", "runs", "answers", "scores", "mlflow.db", ".mlflow.lock", "mlartifacts")
"""What may grow with the number of runs."""


@dataclass
class Soak:
    """An output directory and the runs in it."""

    server: Server
    folder: Path
    config: Path
    tried: dict[str, int] = field(default_factory=dict)
    events: int = 1
    seconds: float = 1.0
    shape: frozenset[str] = frozenset()
    """The names of the files that an undisturbed run leaves."""

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def play(self, name: str, copies: int = 1, **fault: object) -> list[Ended]:
        arguments = ["train", "--config", str(self.config), "--set", f"logging.run_name={name}"]
        # Its own learning rate makes the training its own; model, tokenizer and data are shared.
        rate = 1e-4 * (1 + int(name.rpartition("-")[2]) / 1000)
        job = {"spec": None, "arguments": [*arguments, "--set", f"train.learning_rate={rate}"],
               "log": str(self.log), "root": str(self.output)}  # fmt: skip
        return self.server.play(job, copies, **fault)  # type: ignore[arg-type]

    @property
    def log(self) -> Path:
        return self.folder / "said.txt"

    def measure(self) -> None:
        """An undisturbed run, after one that made what all share."""
        for name in ("run-0", "run-1"):
            (ended,) = self.play(name)
            assert ended.code == OK, self.log.read_text()[-3000:]
        self.events, self.seconds = ended.events, ended.seconds
        self.shape = self.made("run-1")

    def made(self, name: str) -> frozenset[str]:
        """The names of the files of one run and of its stages."""
        run = self.output / "runs" / name
        found = {str(path.relative_to(run)) for path in run.rglob("*")}
        for link in (run / "stages").iterdir():
            stage = link.resolve()
            below = stage.rglob("*")
            found |= {f"{link.name}: {path.relative_to(stage)}" for path in below}
        return frozenset(found)

    def clean(self, name: str, why: str) -> None:
        """Nothing is left but the run and its stages."""
        assert not self.server.left(), f"{why}: {self.server.left()}"
        assert self.made(name) == self.shape, f"{why}: {sorted(self.made(name) ^ self.shape)}"
        left = [str(path) for path in self.output.rglob("*") if half_written(path)]
        assert not left, f"{why}: {left}"
        if any((self.output / "outbox").glob("*/")):  # MLflow has not got all so far
            arguments = ["sync", "--output-dir", str(self.output)]
            assert self.server.command(arguments, self.log, self.output).code == OK, why
        other = {path.name for path in self.output.iterdir() if not path.name.startswith(OURS)}
        waiting = {path.name for path in (self.output / "outbox").iterdir()} - {LOGGED}
        records = [path.read_text() for path in self.output.glob("outbox/*/*.json")]
        assert (other, waiting) == ({"outbox"}, {".lock", "changed"}), f"{why}: {other}, {records}"
        temporary = list((self.folder / "tmp").iterdir())
        assert not temporary, f"{why}: {temporary}"
        locks = [path for path in self.output.rglob("*") if path.name.endswith("lock")]
        for path in (*locks, *(self.output / "stages" / ".locks").iterdir()):
            assert free(path), f"{why}: {path} is held"

    def size(self) -> int:
        """Bytes below the output directory, without what MLflow has."""
        files = [path for path in self.output.rglob("*") if path.is_file()]
        ours = [path for path in files if "mlartifacts" not in path.parts]
        return sum(p.stat().st_size for p in ours if not p.name.startswith("mlflow.db"))

    def forget(self, name: str) -> None:
        """Remove a run and the stages that only it has."""
        for link in (self.output / "runs" / name / "stages").iterdir():
            if link.name not in ("model", "tokenizer", "data", "evaluate-base"):
                shutil.rmtree(link.resolve())
        shutil.rmtree(self.output / "runs" / name)
        for cache in ("answers", "scores"):
            shutil.rmtree(self.output / cache, ignore_errors=True)
        for bad in (self.output / "stages").glob("*.bad"):
            shutil.rmtree(bad)


def free(path: Path) -> bool:
    """Whether nobody holds the lock."""
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def soak(made: Soak, runs: int, rng: random.Random) -> None:
    """That many runs, each with a fault and its recovery."""
    flat = open_files = None
    for number in range(2, runs + 2):
        name, fault = f"run-{number}", rng.choice(list(FAULTS))
        why = f"{name}: {fault}: {FAULTS[fault](made, name, rng)}"
        (again,) = made.play(name)
        assert again.code == OK, f"{why}: {again} {made.log.read_text()[-3000:]}"
        made.clean(name, why)
        print(why, flush=True)  # noqa: T201
        made.log.unlink()
        made.forget(name)
        made.tried[fault] = made.tried.get(fault, 0) + 1
        size, descriptors = made.size(), made.server.descriptors()
        flat, open_files = flat or size, open_files or descriptors
        assert size - flat < 1000, f"{why}: {size} bytes are left, and {flat} were at first"
        assert descriptors == open_files, f"{why}: {descriptors} open files"


def _kill(made: Soak, name: str, rng: random.Random) -> str:
    point = {"fault": "kill", "event": rng.randint(1, made.events)}
    return _ended(made.play(name, **point), point, OK, KILLED)


def _kill_later(made: Soak, name: str, rng: random.Random) -> str:
    point = {"after": rng.uniform(0, made.seconds)}
    return _ended(made.play(name, **point), point, OK, KILLED)


def _term(made: Soak, name: str, rng: random.Random) -> str:
    point = {"fault": "term", "event": rng.randint(1, made.events)}
    return _ended(made.play(name, **point), point, OK, RESUMABLE)


def _term_later(made: Soak, name: str, rng: random.Random) -> str:
    point = {"after": rng.uniform(0, made.seconds), "number": signal.SIGTERM}
    return _ended(made.play(name, **point), point, OK, RESUMABLE, TERMED)


def _full(made: Soak, name: str, rng: random.Random) -> str:
    point = {"fault": "full", "event": rng.randint(1, made.events)}
    return _ended(made.play(name, **point), point, OK, NO_SPACE)


def _not_finite(made: Soak, name: str, rng: random.Random) -> str:
    point = {"fault": rng.choice(("nan", "inf", "gradient")), "event": rng.randint(1, 4)}
    return _ended(made.play(name, **point), point, DIVERGED)


def _clock(made: Soak, name: str, rng: random.Random) -> str:
    jump, event = rng.choice(("tomorrow", "yesterday")), rng.randint(1, made.events)
    point = {"fault": jump, "event": event, "after": rng.uniform(0, made.seconds)}
    return _ended(made.play(name, **point), point, OK, KILLED)


def _race(made: Soak, name: str, rng: random.Random) -> str:
    point = {"copies": 2, "after": rng.choice((None, rng.uniform(0, made.seconds)))}
    return _ended(made.play(name, **point), point, OK, KILLED)  # type: ignore[arg-type]


def _twice(made: Soak, name: str, rng: random.Random) -> str:
    return f"{_kill(made, name, rng)}, then {_term_later(made, name, rng)}"


def _damage(made: Soak, name: str, rng: random.Random) -> str:
    """Of what a killed run has written one file is missing, empty or half."""
    killed = _kill(made, name, rng)
    stages = made.output / "stages"
    files = [p for p in sorted(stages.glob("[!.]*/**/*")) if p.is_file() and p.stat().st_size]
    own = [p for p in files if ".partial" in str(p.relative_to(stages).parts[0])]
    checkpoints = [p for p in own if "checkpoints" in p.parts]
    file = rng.choice(checkpoints or files)
    how = rng.choice(("missing", "empty", "half"))
    if how == "missing":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2 if how == "half" else 0)
    return f"{killed}, {file.relative_to(stages)} {how}"


def _ended(ends: list[Ended], point: object, *allowed: int) -> str:
    assert all(ended.code in allowed for ended in ends), f"{point}: {ends}"
    return f"{point} {[ended.code for ended in ends]}"


FAULTS: dict[str, Callable[[Soak, str, random.Random], str]] = {
    "kill -9 at a change of a file": _kill,
    "kill -9 at a time": _kill_later,
    "SIGTERM at a change of a file": _term,
    "SIGTERM at a time": _term_later,
    "disk full": _full,
    "not finite": _not_finite,
    "clock": _clock,
    "race": _race,
    "kill -9, then SIGTERM": _twice,
    "damage": _damage,
}
