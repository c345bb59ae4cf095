"""What the training stages of a plan need: memory, what is chosen by it, work, time. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from aligntune.artifacts import MANIFEST, Artifact, Manifest
from aligntune.config.slices import ModelSlice, TrainSlice
from aligntune.errors import ConfigError
from aligntune.estimate.choice import applied, choose
from aligntune.estimate.device import UTILISATION, Devices
from aligntune.estimate.header import read_gguf
from aligntune.estimate.labour import Labour, labour
from aligntune.estimate.lengths import Lengths, read_lengths
from aligntune.estimate.memory import Choice, Memory, Place, Sharding, training_memory
from aligntune.estimate.room import Room, free_gpu_memory, main_memory
from aligntune.estimate.shape import Shape, read_shape
from aligntune.models.precision import has_gpu
from aligntune.models.source import locate
from aligntune.plan import Plan, Planned

SHARDINGS: tuple[Sharding, ...] = ("ddp", "zero2", "fsdp")
NEWEST = 20
"""So many earlier trainings of a kind tell how fast this machine is."""


@dataclass(frozen=True)
class Forecast:
    """Of one training stage."""

    label: str
    spec: TrainSlice
    room: Room
    choice: Choice
    memory: Memory | None
    """As it will train; None while the model's dimensions are not known."""
    elsewhere: dict[Sharding, Memory]
    """As other devices would hold it, where they are asked about."""
    labour: Labour | None
    seconds: float | None
    by: str
    """What the time is told by."""

    @property
    def fits(self) -> bool | None:
        """Whether it does without sharing the model out; None where that is not known."""
        if self.memory is None or self.room.free is None:
            return None
        return self.memory.total <= self.room.free


def forecasts(plan: Plan, on: Devices | None = None) -> list[Forecast]:
    """Of each training stage that is to run: on this machine, or on other devices."""
    here = _here(plan.config.launch.processes) if on is None else Room(on.kind, on.memory)
    return [
        _forecast(plan, planned, here, on)
        for planned in plan.stages
        if planned.artifact is None and isinstance(planned.stage.config, TrainSlice)
    ]


def _here(processes: int) -> Room:
    if has_gpu():
        return Room("gpu", free_gpu_memory())
    return main_memory(processes)


def _forecast(plan: Plan, planned: Planned, room: Room, on: Devices | None) -> Forecast:
    stage = planned.stage
    spec = stage.config
    assert isinstance(spec, TrainSlice)
    if on is not None:
        spec = spec.model_copy(update={"processes": on.count})
    shape = _shape(plan, stage.inputs["model"])
    lengths = _lengths(plan, stage.inputs["data"])
    longest = lengths.longest if lengths else None
    choice = choose(spec, shape, room, longest)
    spec = applied(spec, choice)

    def memory(sharding: Sharding) -> Memory:
        assert shape is not None
        return training_memory(
            shape, spec, choice, Place(room.kind, spec.processes, sharding), longest
        )

    work = labour(shape, spec, choice, lengths) if shape else None
    held = memory("ddp") if shape else None
    seconds, by = (
        _elsewhere(work, held, on) if on else _by_experience(work, spec, plan.paths.stages)
    )
    return Forecast(
        label=stage.label,
        spec=spec,
        room=room,
        choice=choice,
        memory=held,
        elsewhere={name: memory(name) for name in SHARDINGS} if shape and on else {},
        labour=work,
        seconds=seconds,
        by=by,
    )


def _elsewhere(work: Labour | None, memory: Memory | None, on: Devices) -> tuple[float | None, str]:
    """Seconds on other devices: operations at the rate that training reaches, and for each token
    that is sampled one reading of the weights."""
    if work is None or memory is None or on.flops is None or on.bandwidth is None:
        return None, ""
    seconds = work.flops / (on.flops * on.count) + work.decoded * memory.weights / on.bandwidth
    return seconds, f"{UTILISATION:.0%} of {on.name}'s peak"


def _by_experience(work: Labour | None, spec: TrainSlice, stages: Path) -> tuple[float | None, str]:
    """As fast as the training here before that did most nearly as much, and its name."""
    done = [
        (abs(flops - work.flops), work.flops / flops * seconds, name)
        for name, before, flops, seconds in _finished(spec.algo, stages)
        if work and (before.processes, before.precision) == (spec.processes, spec.precision)
    ]
    if not done:
        return None, ""
    _, seconds, name = min(done)
    return seconds, name


def _finished(kind: str, stages: Path) -> Iterator[tuple[str, TrainSlice, float, float]]:
    """(name, what it was, operations, seconds) of the newest trainings of a kind."""
    files = sorted(stages.glob(f"{kind}-*/{MANIFEST}"), key=_written)
    for path in files[-NEWEST:]:
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
            spec = TrainSlice.model_validate(manifest.identity["config"])
            shape = read_shape(stages / manifest.inputs["model"] / "model")
            lengths = read_lengths(stages / manifest.inputs["data"])
        except (OSError, ValidationError, KeyError):
            continue  # of another version, or gone
        if shape is None:
            continue
        checkpointing = manifest.facts.get("choice", {}).get("gradient_checkpointing")
        if checkpointing is None:
            checkpointing = spec.gradient_checkpointing is True
        work = labour(shape, spec, Choice(bool(checkpointing)), lengths)
        if work and work.flops and manifest.seconds > 0:
            yield path.parent.name, spec, work.flops, manifest.seconds


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed meanwhile
        return 0.0


def _shape(plan: Plan, name: str) -> Shape | None:
    """Of the model that an artifact has or will have: training does not change its dimensions."""
    found = _named(plan, name)
    while found is not None:
        if found.artifact is not None:
            return read_shape(found.artifact.path / "model")
        config = found.stage.config
        if isinstance(config, ModelSlice):
            return _at_source(config, found.stage.sources["model"])
        # What is trained, or fetched from the registry, is like what it came from.
        origin = found.stage.inputs.get("model") or found.stage.inputs.get("base")
        found = _named(plan, origin) if origin else None
    return None


def _at_source(config: ModelSlice, fingerprint: str) -> Shape | None:
    try:
        source = locate(config.name_or_path, config.revision)
    except ConfigError:
        return None
    if source.kind == "gguf":
        return read_gguf(Path(source.location))
    if source.kind == "directory":
        return read_shape(Path(source.location))
    from aligntune.hub_config import config_of

    file = config_of(source.location, fingerprint.removeprefix("commit:"))
    return read_shape(file.parent) if file else None


def _lengths(plan: Plan, name: str) -> Lengths | None:
    found = _named(plan, name)
    artifact: Artifact | None = found.artifact if found else None
    return read_lengths(artifact.path) if artifact else None


def _named(plan: Plan, name: str) -> Planned | None:
    return next((planned for planned in plan.stages if planned.stage.name == name), None)
