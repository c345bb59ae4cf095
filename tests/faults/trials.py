"""A training stage that is broken off again and again, held against one that was left alone."""

import os
import random
import shutil
import signal
from pathlib import Path

from faults.bench import CONFIGS, Bench, bench, drawn, result, same
from safetensors.torch import load_file

__all__ = ["CONFIGS", "Bench", "bench"]
STEPS = 5
"""Micro-steps that every one of these trainings has."""
SAVE_STEPS = 2
LATE, LAST = 25, 20
"""Changes of files about from the last checkpoint on, and certainly after it."""
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
        point = drawn(rng, bench.whole)
        ended = bench.attempt(**point)
        assert ended.code in (0, -signal.SIGKILL), f"{point}: {ended.code} {ended.error}"
        assert bench.lost() <= SAVE_STEPS, f"{point}: {bench.lost()} steps are lost"
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


def late_kills(bench: Bench, points: int, rng: random.Random) -> int:
    """Kill -9 while the model is written and gets its name, at each change of a file if there are
    `points` enough. Returns how many were killed."""
    killed = 0
    before_the_end = rng.sample(range(LATE), LATE)
    for number in range(points):
        event = bench.whole.events - before_the_end[number % LATE]
        killed += bench.attempt(fault="kill", event=event).code != 0
        why = f"killed at {event} of {bench.whole.events}"
        may = SAVE_STEPS if event <= bench.whole.events - LAST else 0
        assert bench.lost() <= may, f"{why}: {bench.lost()} steps are lost"
        bench.finish(why)
        bench.clear()
    return killed


def terms(bench: Bench, points: int, rng: random.Random) -> int:
    """SIGTERM at `points` random points, in saving, evaluation and generation too: each ends as
    resumable with at most one step lost or, in its very last moments, finished. Returns how many
    ended early."""
    early = 0
    for _ in range(points):
        point = drawn(rng, bench.whole, signal.SIGTERM)
        ended = bench.attempt(**point)
        why = f"SIGTERM at {point} of {bench.whole}"
        if ended.code == -signal.SIGTERM and "after" in point:
            continue  # it was not listening yet
        assert ended.code in (0, RESUMABLE), f"{why}: {ended}"
        # From about the middle on, the last step may have begun.
        late = "after" in point or point["event"] > bench.whole.events // 3
        assert late or ended.code == RESUMABLE, f"{why}: {ended}"
        if ended.code == RESUMABLE:
            early += 1
            assert not bench.artifact.exists(), why
            assert bench.lost() <= 1, f"{why}: {bench.lost()} steps are lost"
            bench.finish(why)
        else:
            bench.compare(why)
        bench.clear()
    return early


def full_disks(bench: Bench, points: int, rng: random.Random) -> int:
    """A disk that is full from a change of a file on, each of them once if there are `points`
    enough: the error says so, and what was committed before is what the next run continues from.
    Returns how many were hit."""
    hit = 0
    every = range(1, bench.whole.events + 1)
    for event in rng.sample(every, min(points, len(every))):
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
    """A weight or a gradient that is not finite, from a random step on: the run stops before the
    update, and no file has the number in it. Returns how many runs stopped."""
    for _ in range(points):
        step, how = rng.randint(1, STEPS), rng.choice(("nan", "inf", "gradient"))
        ended = bench.attempt(fault=how, event=step)
        why = f"{how} at micro-step {step}"
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
        whole = bench.committed
        bench.finish(f"{jump} from {event}")
        if there and not whole:
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
        if ended.code == 0 or not checkpoints or bench.committed:
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
        bench.clear()
    return found


def flips(bench: Bench, points: int, rng: random.Random) -> int:
    """Single bits of a checkpoint's files that are flipped: each is found. Returns how many were
    tried."""
    from aligntune.train import checkpoints

    folder = None
    while folder is None:
        bench.clear()
        bench.attempt(fault="kill", event=rng.randint(bench.whole.events // 2, bench.whole.events))
        folder = checkpoints.newest(bench.partial / "work" / "checkpoints", key=bench.stage.key)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for _ in range(points):
        file = rng.choice(files)
        content = file.read_bytes()
        place = rng.randrange(8 * len(content))
        _damage(file, "bit", rng, place)
        assert checkpoints._problem(folder, bench.stage.key), f"bit {place} of {file.name}"
        file.write_bytes(content)
    bench.finish("all bits are as they were")
    bench.clear()
    return points


def changes(bench: Bench, points: int, rng: random.Random) -> int:
    """A setting that counts and is changed after a kill: the plan says which, nothing is continued,
    and not even where somebody moves the checkpoints."""
    for _ in range(points):
        section = "reward_model." if bench.stage.label == "reward" else ""
        setting = f"{section}train.learning_rate={rng.uniform(1e-5, 1e-4)}"
        changed = bench.changed(setting)
        wanted = bench.attempt(stage=changed)
        assert wanted.code == 0, wanted
        expected = result(bench.context.stages, changed)
        shutil.rmtree(bench.context.stages / changed.name)
        while not list(bench.partial.glob("work/checkpoints/step-*")):
            bench.clear()
            bench.attempt(
                fault="kill", event=rng.randint(bench.whole.events // 2, bench.whole.events)
            )
        why = bench.why(setting)
        assert "train.learning_rate changed; step" in why, why
        assert "is not continued" in why, why
        moved = bench.context.stages / f"{changed.name}.partial"
        bench.partial.rename(moved)
        bench.server.log(changed).unlink(missing_ok=True)
        ended = bench.attempt(stage=changed)
        assert ended.code == 0, ended
        said = bench.server.log(changed).read_text()
        assert (
            f"it belongs to stage key {bench.stage.key}, of another train.learning_rate;" in said
        ), said
        same(result(bench.context.stages, changed), expected, f"begun again with {setting}")
        shutil.rmtree(bench.context.stages / changed.name)
        bench.clear()
    return points


def _damage(file: Path, how: str, rng: random.Random, place: int | None = None) -> None:
    content = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "bit" and content:
        place = rng.randrange(8 * len(content)) if place is None else place
        content[place // 8] ^= 1 << place % 8
        file.write_bytes(content)
    else:
        file.write_bytes(content[: len(content) // 2] if how == "half" else b"")
