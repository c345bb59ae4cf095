"""A training stage that is broken off again and again, held against one that was left alone."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from safetensors.torch import load_file

from aligntune.artifacts import find
from aligntune.config.load import load
from aligntune.journal import read
from aligntune.plan import Stage, plan
from aligntune.run import Context, to_json

HERE = Path(__file__).parent
STEPS = 5
"""Micro-steps that every one of these trainings has."""
RACERS = 4
RESUMABLE, NO_SPACE, DIVERGED = 75, 74, 79
"""Exit codes that these faults should end with."""

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

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sabotage: str | None = None
        """A precaution that the children go without."""
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "forks.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "forks.log").open("wb"),
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)

    def log(self, stage: Stage) -> Path:
        """What the stage's children said."""
        return self.folder / f"{stage.label}.log"

    def run(self, stage: Stage, context: Context, **fault: Any) -> "Ended":
        """The stage in a child."""
        (ended,) = self.together(1, stage, context, **fault)
        return ended

    def together(
        self, copies: int, stage: Stage, context: Context, fault: str | None = None,
        event: int = 0, after: float | None = None,
    ) -> "list[Ended]":  # fmt: skip
        """The same stage in several children at once; `after` that many seconds one of those that
        are still there is killed, whatever it does."""
        spec = self.folder / "spec.json"
        spec.write_text(to_json(stage, context), encoding="utf-8")
        log = self.log(stage)
        job = {"spec": str(spec), "log": str(log), "fault": fault, "event": event}
        began = time.monotonic()
        self._send(job | {"root": context.root, "copies": copies, "sabotage": self.sabotage})
        (victim, *_) = self._answer()
        if after is not None:
            time.sleep(after)
            with suppress(ProcessLookupError):  # it was faster
                os.kill(victim, signal.SIGKILL)
        answers = self._answer()
        seconds = time.monotonic() - began
        return [Ended(seconds=seconds, **answer) for answer in answers]

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
        for path in (self.artifact, self.partial):
            shutil.rmtree(path, ignore_errors=True)

    def attempt(self, **fault: Any) -> Ended:
        return self.server.run(self.stage, self.context, **fault)

    def finish(self, why: str) -> None:
        """Run again without a fault: what is made then must be what was expected."""
        ended = self.attempt()
        text = self.log.read_text()[-3000:]
        assert ended.code == 0, (
            f"{why}: the next run ended with {ended.code}: {ended.error}\n{text}"
        )
        self.compare(why)

    def compare(self, why: str) -> None:
        made = result(self.context.stages, self.stage)
        for name, value in self.expected.items():
            differ = {
                key: (made[name].get(key), was)
                for key, was in value.items()
                if made[name].get(key) != was
            }
            assert not differ, f"{why}: {name} differ from the undisturbed run: {differ}"
            assert made[name].keys() == value.keys(), f"{why}: {name} has more"
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
        made = Bench(server, stage, context, result(context.stages, stage), whole)
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


def kills(bench: Bench, points: int, rng: random.Random) -> int:
    """Kill -9 at `points` random points; returns how many undisturbed results were found equal.

    Half of the points are changes of files, half are times. About half of the attempts after a kill
    are killed too, so that recoveries are broken off as well.
    """
    killed = compared = 0
    while killed < points:
        point = _drawn(rng, bench.whole)
        ended = bench.attempt(**point)
        assert ended.code in (0, -signal.SIGKILL), f"{point}: {ended.code} {ended.error}"
        killed += ended.code != 0
        if ended.code == 0:
            bench.compare(f"{point}")
        elif rng.random() < 0.5 and killed < points:
            continue
        else:
            bench.finish(f"killed at {point}")
        compared += 1
        bench.clear()
    return compared


def _drawn(rng: random.Random, whole: Ended) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {"fault": "kill", "event": rng.randint(1, whole.events)}
    return {"after": rng.uniform(0, whole.seconds)}


def terms(bench: Bench, points: int, rng: random.Random) -> int:
    """SIGTERM before `points` random changes of files: each ends as resumable or, in its very last
    moments, finished. Returns how many ended early."""
    early = 0
    for _ in range(points):
        event = rng.randint(1, bench.whole.events)
        ended = bench.attempt(fault="term", event=event)
        why = f"SIGTERM at {event} of {bench.whole.events}"
        late = event > bench.whole.events // 2  # the last step may have begun
        assert ended.code in ((0, RESUMABLE) if late else (RESUMABLE,)), f"{why}: {ended}"
        if ended.code == RESUMABLE:
            early += 1
            assert not bench.artifact.exists(), why
            bench.finish(why)
        else:
            bench.compare(why)
        bench.clear()
    return early


def full_disks(bench: Bench, points: int, rng: random.Random) -> int:
    """A disk that is full from a random change on: the error says so, and what was committed before
    is what the next run continues from. Returns how many were hit."""
    hit = 0
    for _ in range(points):
        event = rng.randint(1, bench.whole.events)
        ended = bench.attempt(fault="full", event=event)
        why = f"full from {event} of {bench.whole.events}"
        assert ended.code in (0, NO_SPACE), f"{why}: {ended.code} {ended.error}"
        if ended.code == NO_SPACE:
            hit += 1
            assert "No space left" in ended.error, ended.error
            bench.finish(why)
        else:
            bench.compare(why)
        bench.clear()
    return hit


def nans(bench: Bench, points: int, rng: random.Random) -> int:
    """A weight that is not a number, from a random step on: the run stops before the update, and
    no file has the number in it. Returns how many runs stopped."""
    for _ in range(points):
        step = rng.randint(1, STEPS)
        ended = bench.attempt(fault="nan", event=step)
        why = f"NaN at micro-step {step}"
        assert ended.code == DIVERGED, f"{why}: {ended.code} {ended.error}"
        assert "not finite" in ended.error, ended.error
        for file in bench.context.stages.rglob("*.safetensors"):
            for name, tensor in load_file(file).items():
                assert bool(tensor.isfinite().all()), f"{why}: {name} in {file}"
        bench.finish(why)
        bench.clear()
    return points


def clocks(bench: Bench, points: int, rng: random.Random) -> int:
    """A clock that jumps by a day, and a kill after that: the newest checkpoint is by step, and the
    result the same."""
    for _ in range(points):
        jump = rng.choice(("tomorrow", "yesterday"))
        event = rng.randint(1, bench.whole.events)
        bench.attempt(fault=jump, event=event, after=rng.uniform(0, bench.whole.seconds))
        for path in bench.partial.rglob("*"):
            os.utime(path, (4e9, 4e9) if rng.random() < 0.5 else (0, 0), follow_symlinks=False)
        there = sorted(path.name for path in bench.partial.glob("work/checkpoints/step-*"))
        bench.log.unlink(missing_ok=True)
        bench.finish(f"{jump} from {event}")
        if there:
            assert f"continuing from checkpoint {there[-1]}" in bench.log.read_text(), there
        bench.clear()
    return points


def races(bench: Bench, points: int, rng: random.Random) -> int:
    """Several processes with one stage: one builds it, the others wait and reuse; where the first
    is killed, the next goes on."""
    for _ in range(points):
        after = rng.choice((None, rng.uniform(0, bench.whole.seconds)))
        ends = bench.server.together(RACERS, bench.stage, bench.context, after=after)
        alive = [ended for ended in ends if ended.code == 0]
        assert len(alive) >= RACERS - (after is not None), ends
        assert all(ended.code in (0, -signal.SIGKILL) for ended in ends), ends
        built = [ended for ended in alive if not ended.reused]
        assert len(built) <= 1, ends
        assert built or after is not None, ends
        bench.compare(f"{RACERS} at once, one killed after {after}")
        bench.clear()
    return points


def damages(bench: Bench, points: int, rng: random.Random) -> int:
    """Files of the newest checkpoint that are missing, empty, cut in half or have one bit flipped:
    each is found, the one before is used, the result is the same. Returns how many were found."""
    found = 0
    while found < points:
        ended = bench.attempt(
            fault="kill", event=rng.randint(bench.whole.events // 2, bench.whole.events)
        )
        checkpoints = sorted(bench.partial.glob("work/checkpoints/step-*"))
        if ended.code == 0 or not checkpoints:
            bench.clear()
            continue
        file = rng.choice([p for p in sorted(checkpoints[-1].rglob("*")) if p.is_file()])
        how = rng.choice(["missing", "empty", "half", "bit"])
        why = f"{file.name} of {checkpoints[-1].name} {how}"
        _damage(file, how, rng)
        bench.finish(why)
        said = bench.log.read_text()
        assert f"checkpoint {checkpoints[-1].name} is not used" in said, why
        found += 1
        bench.log.unlink()
        bench.clear()
    return found


def _damage(file: Path, how: str, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "bit" and content:
        place = rng.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
        file.write_bytes(content)
    else:
        file.write_bytes(content[: len(content) // 2] if how == "half" else b"")
