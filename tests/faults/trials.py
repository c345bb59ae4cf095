"""A training stage that is broken off again and again, held against one that was left alone."""

import os
import random
import signal
from pathlib import Path
from typing import Any

from faults.bench import CONFIGS, Bench, Ended, bench
from safetensors.torch import load_file

__all__ = ["CONFIGS", "Bench", "bench"]
STEPS = 5
"""Micro-steps that every one of these trainings has."""
RACERS = 4
RESUMABLE, NO_SPACE, DIVERGED = 75, 74, 79
"""Exit codes that these faults should end with."""


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
