"""A training stage in a fork server, and what it makes if nobody disturbs it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from aligntune.artifacts import MANIFEST, find
from aligntune.config.load import load
from aligntune.journal import read
from aligntune.plan import Stage, plan
from aligntune.run import Context, to_json

PATIENCE = 120
"""Seconds that telling MLflow may take on a busy machine."""
HERE = Path(__file__).parent
BASE = """
model: {name_or_path: MODEL, precision: fp32, max_seq_length: 96}
evaluation: {heldout_fraction: 0.2, max_new_tokens: 4, resamples: 200}
registry: {name: tiny, promote: never}
logging: {output_dir: OUTPUT, run_name: tiny, save_steps: 2, eval_steps: 3, loggers: none}
"""
ROWS = 'datasets: [{name: "arithmetic:", params: {count: 40, seed: 2}}]\n'
ONLINE = (
    ROWS + "rewards: [{reward_type: length, params: {min_length: 1, max_length: 20}}]\n"
    "train: {per_device_batch_size: 8, num_generations: 4, max_completion_length: 6,"
    " max_steps: 6, learning_rate: 1e-3"
)
CONFIGS = {
    "sft": "algo: sft\n" + ROWS + "train: {per_device_batch_size: 4, max_steps: 7,"
    " learning_rate: 1e-3, gradient_accumulation_steps: 2}\n",
    "dpo": "algo: dpo\n" + ROWS + "train: {per_device_batch_size: 4, max_steps: 6,"
    " learning_rate: 1e-4}\n",
    "reward": "algo: dpo\n" + ROWS + 'reward_model: {datasets: [{name: "arithmetic:",'
    " params: {count: 40, seed: 3}}], train: {per_device_batch_size: 4, max_steps: 6,"
    " learning_rate: 1e-3}}\n",
    "grpo": "algo: grpo\n" + ONLINE + ", num_iterations: 2}\n",
    "bolt": "algo: bolt\n" + ONLINE.replace("num_generations: 4", "num_generations: 1") + "}\n",
    "ppo": "algo: ppo\n" + ONLINE.replace("num_generations: 4, ", "") + "}\n",
}
"""Trainer -> a run in which it is a stage; grpo uses its samples twice, sft accumulates."""


class Server:
    """The fork server, and the stages that are run in its children."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.sabotage: str | None = None
        """A precaution that the children go without."""
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "forks.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "forks.log").open("wb"),
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(600)

    def log(self, stage: Stage) -> Path:
        """What the stage's children said."""
        return self.folder / f"{stage.label}.log"

    def run(self, stage: Stage, context: Context, **fault: Any) -> "Ended":
        """The stage in a child."""
        (ended,) = self.together(1, stage, context, **fault)
        return ended

    def together(self, copies: int, stage: Stage, context: Context, **fault: Any) -> "list[Ended]":
        """The same stage in several children at once."""
        spec = self.folder / "spec.json"
        spec.write_text(to_json(stage, context), encoding="utf-8")
        job = {"spec": str(spec), "arguments": [], "log": str(self.log(stage))}
        return self.play(job | {"root": context.root}, copies, **fault)

    def command(self, arguments: Sequence[str], log: Path, root: Path, **fault: Any) -> "Ended":
        """A command in a child."""
        job = {"spec": None, "arguments": list(arguments), "log": str(log), "root": str(root)}
        (ended,) = self.play(job, 1, **fault)
        return ended

    def play(
        self, job: Mapping[str, object], copies: int, *, fault: str | None = None, event: int = 0,
        after: float | None = None, number: int = signal.SIGKILL,
    ) -> "list[Ended]":  # fmt: skip
        """A job with a fault; `after` that many seconds the first of the children, and what it has
        started, gets the signal `number`, whatever it does."""
        began = time.monotonic()
        self._send({**job, "copies": copies, "fault": fault, "event": event,
                    "sabotage": self.sabotage})  # fmt: skip
        (victim, *_) = self._answer()
        if after is not None:
            time.sleep(after)
            with suppress(ProcessLookupError):  # it was faster
                (os.killpg if number == signal.SIGKILL else os.kill)(victim, number)
        answers = self._answer()
        seconds = time.monotonic() - began
        return [Ended(seconds=seconds, **answer) for answer in answers]

    def left(self) -> list[str]:
        """The command lines of processes that are still there, when what tells MLflow of a run that
        had nothing to do has had its time."""
        end = time.monotonic() + PATIENCE
        while found := psutil.Process(self._process.pid).children(recursive=True):
            lines = []
            for child in found:
                with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it ends meanwhile
                    lines.append(" ".join(child.cmdline()))
            # While it goes on, it may have started something itself.
            if not any("aligntune sync" in line for line in lines) or time.monotonic() > end:
                return lines
            time.sleep(0.1)
        return []

    @property
    def pid(self) -> int:
        return self._process.pid

    def descriptors(self) -> int:
        """How many files it has open."""
        return psutil.Process(self._process.pid).num_fds()

    def _send(self, job: Mapping[str, object]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> list[Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, (self.folder / "forks.log").read_text()[-3000:]
        answer: list[Any] = json.loads(line)
        return answer


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    """Exit code, or minus the signal."""
    events: int
    error: str
    reused: bool | None
    seconds: float


@dataclass
class Bench:
    """A training stage whose inputs are there, and what it makes if nobody disturbs it."""

    server: Server
    stage: Stage
    context: Context
    expected: Mapping[str, Any]
    whole: Ended
    config: Path

    @property
    def artifact(self) -> Path:
        return self.context.stages / self.stage.name

    @property
    def partial(self) -> Path:
        return self.artifact.with_name(f"{self.stage.name}.partial")

    @property
    def log(self) -> Path:
        return self.server.log(self.stage)

    def clear(self) -> None:
        """Forget what was made, whatever became of it, and what was said."""
        for path in self.context.stages.glob(f"{self.stage.kind}-*"):
            shutil.rmtree(path)
        self.log.unlink(missing_ok=True)

    def attempt(self, stage: Stage | None = None, **fault: Any) -> Ended:
        return self.server.run(stage or self.stage, self.context, **fault)

    @property
    def committed(self) -> bool:
        """Whether the model is whole: what is left is to remove the scratch, which has the
        checkpoints, and to give it its name."""
        return self.artifact.exists() or (self.partial / MANIFEST).exists()

    def lost(self) -> int:
        """Steps that were taken and that neither a checkpoint nor a whole model has."""
        if self.committed:
            return 0
        rows = read(self.partial / "metrics.jsonl")
        taken = [row.step for row in rows if "train/loss" in row.metrics]
        saved = self.partial.glob("work/checkpoints/step-*")
        newest = max((int(path.name.partition("-")[2]) for path in saved), default=0)
        return max(taken, default=0) - newest

    def changed(self, setting: str) -> Stage:
        """The stage with another setting."""
        return plan(load([self.config], [setting]))[self.stage.label].stage

    def why(self, setting: str) -> str:
        """What the plan says of it."""
        return plan(load([self.config], [setting]))[self.stage.label].why

    def finish(self, why: str) -> None:
        """Run again without a fault: what is made then must be what was expected, and a model that
        was whole is not made again."""
        whole = self.committed
        ended = self.attempt()
        text = self.log.read_text()[-3000:]
        assert ended.code == 0, (
            f"{why}: the next run ended with {ended.code}: {ended.error}\n{text}"
        )
        assert ended.reused or not whole, f"{why}: a whole model was made again\n{text}"
        self.compare(why)

    def compare(self, why: str) -> None:
        same(result(self.context.stages, self.stage), self.expected, why)
        left = sorted(p.name for p in self.context.stages.glob(f"{self.stage.kind}-*"))
        assert left == [self.stage.name], f"{why}: left behind {left}"


@contextmanager
def bench(trainer: str, model: Path, folder: Path) -> Iterator[Bench]:
    """The stage of `trainer` with everything before it done, measured once undisturbed."""
    output = folder / "out"
    config = folder / f"{trainer}.yaml"
    text = CONFIGS[trainer] + BASE.replace("MODEL", str(model)).replace("OUTPUT", str(output))
    config.write_text(text)
    planned = plan(load([config], []))
    context = Context(str(planned.paths.root), "", "tiny", None)
    with Server(folder) as server:
        for entry in planned.stages:
            if entry.stage.label == trainer:
                break
            ended = server.run(entry.stage, context)
            assert ended.code == 0, f"{entry.stage.label}: {ended.error}"
        stage = planned[trainer].stage
        whole = server.run(stage, context)
        assert whole.code == 0, whole.error + server.log(stage).read_text()[-3000:]
        made = Bench(server, stage, context, result(context.stages, stage), whole, config)
        made.clear()
        yield made


def result(stages: Path, stage: Stage) -> dict[str, Any]:
    """Everything a training stage makes that must not depend on how often it was broken off."""
    artifact = find(stages, stage.kind, stage.key, verify=True)
    assert artifact, f"{stage.name} is missing or damaged"
    files = {
        name: record.sha256
        for name, record in artifact.manifest.files.items()
        if name != "metrics.jsonl"  # has times
    }
    curves = {
        (row.step, name): value
        for row in read(artifact.path / "metrics.jsonl")
        for name, value in row.metrics.items()
        if "time" not in name and not name.endswith("per_second")
    }
    metrics = artifact.manifest.metrics
    summary = {name: value for name, value in metrics.items() if "seconds" not in name}
    return {"files": files, "curves": curves, "summary": summary}


def same(made: Mapping[str, Any], expected: Mapping[str, Any], why: str) -> None:
    """Both are alike, or the error says in what they differ."""
    for name, value in expected.items():
        differ = {
            key: (made[name].get(key), was)
            for key, was in value.items()
            if made[name].get(key) != was
        }
        assert not differ, f"{why}: {name} differ from the undisturbed run: {differ}"
        more = made[name].keys() - value.keys()
        assert not more, f"{why}: {name} has more: {sorted(more)}"


def drawn(rng: random.Random, whole: Ended, number: int = signal.SIGKILL) -> dict[str, Any]:
    """A signal at a random change of a file, or at a random time."""
    if rng.random() < 0.5:
        fault = "kill" if number == signal.SIGKILL else "term"
        return {"fault": fault, "event": rng.randint(1, whole.events)}
    return {"after": rng.uniform(0, whole.seconds), "number": number}
