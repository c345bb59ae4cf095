"""What training will need, as tables in the terminal and as JSON values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from aligntune.console import table
from aligntune.estimate.choice import remedy, told
from aligntune.estimate.device import Devices
from aligntune.estimate.memory import Sharding
from aligntune.estimate.words import gigabytes, operations, span
from aligntune.forecast import Forecast

NAMES: Mapping[Sharding, str] = {"ddp": "DDP", "zero2": "ZeRO-2", "fsdp": "FSDP"}
UNKNOWN = "unknown until the model is there"


def show_forecasts(console: Console, found: Sequence[Forecast], on: Devices | None) -> None:
    """Memory by part, work and time of each training stage, and what is chosen by what is free."""
    if not found:
        return
    parts = list(dict.fromkeys(name for each in found if each.memory for name in each.memory.parts))
    names = [part.replace("_", " ") for part in parts]
    tables: list[tuple[tuple[str, ...], list[tuple[str, ...]]]] = [
        (("memory", "total", "free", *names), [_memory(each, parts) for each in found]),
        (("work", "tokens", "operations", "time", "by"), [_work(each) for each in found]),
    ]
    if on:
        tables.append((("per device", *NAMES.values()), [_shared(each, on) for each in found]))
    for columns, rows in tables:
        made = table("", columns, rows)
        unbound = console.options.update(max_width=1000)
        if console.measure(made, options=unbound).maximum > console.width:
            head, *rest = zip(columns, *rows, strict=True)
            made = table("", head, rest)
        console.print()
        console.print(made)
    console.print()
    for line in _lines(found):
        console.print(line, highlight=False, soft_wrap=True)


def forecast_record(found: Sequence[Forecast]) -> list[dict[str, Any]]:
    """The same as JSON values: bytes, seconds."""
    return [
        {
            "label": each.label,
            "memory": dict(each.memory.parts) | {"total": each.memory.total}
            if each.memory
            else None,
            "elsewhere": {name: memory.total for name, memory in each.elsewhere.items()},
            "device": asdict(each.room),
            "fits": each.fits,
            "choice": asdict(each.choice),
            "work": asdict(each.labour) if each.labour else None,
            "seconds": each.seconds,
            "by": each.by or None,
        }
        for each in found
    ]


def _memory(each: Forecast, parts: Sequence[str]) -> tuple[str, ...]:
    free = "?" if each.room.free is None else gigabytes(each.room.free)
    if each.memory is None:
        return (each.label, UNKNOWN, free, *("-" for _ in parts))
    sizes = (each.memory.parts.get(part) for part in parts)
    shown = (gigabytes(size) if size else "-" for size in sizes)
    return (each.label, gigabytes(each.memory.total), free, *shown)


def _work(each: Forecast) -> tuple[str, ...]:
    work = each.labour
    if work is None:
        return (each.label, *4 * ("?",))
    tokens = f"{'at most ' if work.at_most else ''}{work.tokens:,}"
    time = "?" if each.seconds is None else span(each.seconds)
    return (each.label, tokens, operations(work.flops), time, each.by or "nothing like it yet")


def _shared(each: Forecast, on: Devices) -> tuple[str, ...]:
    shown = []
    for name in NAMES:
        memory = each.elsewhere.get(name)
        fits = memory is not None and memory.total <= on.memory
        size = gigabytes(memory.total) if memory else "-"
        shown.append(size if fits or memory is None else f"{size}, does not fit")
    return (each.label, *shown)


def _lines(found: Sequence[Forecast]) -> Iterator[str]:
    for each in found:
        yield f"{each.label:<10} {'; '.join(told(each.choice))}"
        if each.fits is False and each.memory:
            instead = remedy(each.spec, each.choice, each.memory, each.room)
            yield f"{'':<10} warning: this will hardly fit; {instead}"
