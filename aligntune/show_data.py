"""The report of a data stage in the terminal. No text in it is trusted."""

import math
from pathlib import Path

from rich.console import Console

from aligntune.config.naming import printable
from aligntune.console import table
from aligntune.data.report import DataReport, Histogram
from aligntune.report.data import columns, facts, sizes, title
from aligntune.show import from_here

BAR = 30
"""Characters of a full bar."""
SAMPLE = 600
"""Characters of one."""


def show(report: DataReport, folder: Path, label: str, console: Console, samples: int = 2) -> None:
    """The report for a person at a terminal, with so many samples of each source."""
    counts = columns(report)
    rows = [
        (printable(title(source)), source.format, *(values[number] for _, values in counts))
        for number, source in enumerate(report.sources)
    ]
    heading = f"{label}: {sizes(report)}"
    console.print(table(heading, ("source", "format", *(name for name, _ in counts)), rows))
    console.print(printable(report.rule), style="dim", markup=False, highlight=False)
    for source in report.sources:
        console.print(f"\n{printable(title(source))}", style="bold", markup=False, highlight=False)
        for fact in facts(source):
            console.print(f"  {printable(fact)}", markup=False, highlight=False)
        for line in bars(source.lengths, _block(console)):
            console.print(f"  {line}", markup=False, highlight=False)
        for sample in source.samples[:samples]:
            text = "\n".join(f"  | {printable(line)}" for line in sample[:SAMPLE].splitlines())
            console.print(text, style="dim", markup=False, highlight=False)
    console.print()
    places = {"report": folder / "report.html"}
    if any(sum(source.dropped.values()) for source in report.sources):
        places["dropped"] = folder / "rejected.jsonl"
    for name, place in places.items():
        line = f"{name:<8} {from_here(place)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _block(console: Console) -> str:
    return "█" if console.encoding.startswith("utf") else "#"


def bars(lengths: Histogram | None, block: str = "█") -> list[str]:
    """A histogram in text; whatever is there has a bar."""
    if lengths is None:
        return []
    most = max(lengths.counts)
    return [
        f"{low:>7,} to {high - 1:>7,}  {block * math.ceil(BAR * count / most):<{BAR}} {count:,}"
        for low, high, count in zip(lengths.edges, lengths.edges[1:], lengths.counts, strict=False)
    ]
