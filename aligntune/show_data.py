"""The report of a data stage in the terminal. No text in it is trusted."""

from pathlib import Path

from rich.console import Console

from aligntune.config.document import printable
from aligntune.console import table
from aligntune.data.report import DataReport, Histogram
from aligntune.report.data import columns, facts, sizes, title

BAR = 30
"""Characters of a full bar."""
SHOWN = 2
"""Samples of a source."""
SAMPLE = 600
"""Characters of one."""


def show(report: DataReport, folder: Path, label: str, console: Console) -> None:
    """The report for a person at a terminal."""
    counts = columns(report)
    rows = [
        (title(source), source.format, *(values[number] for _, values in counts))
        for number, source in enumerate(report.sources)
    ]
    heading = f"{label}: {sizes(report)}"
    console.print(table(heading, ("source", "format", *(name for name, _ in counts)), rows))
    console.print(report.rule, style="dim", markup=False, highlight=False)
    for source in report.sources:
        console.print(f"\n{printable(title(source))}", style="bold", markup=False, highlight=False)
        for fact in facts(source):
            console.print(f"  {printable(fact)}", markup=False, highlight=False)
        for line in bars(source.lengths):
            console.print(f"  {line}", markup=False, highlight=False)
        for sample in source.samples[:SHOWN]:
            text = "\n".join(f"  | {printable(line)}" for line in sample[:SAMPLE].splitlines())
            console.print(text, style="dim", markup=False, highlight=False)
    console.print(f"\nreport   {folder / 'report.html'}", markup=False, highlight=False)
    if any(sum(source.dropped.values()) for source in report.sources):
        console.print(f"dropped  {folder / 'rejected.jsonl'}", markup=False, highlight=False)


def bars(lengths: Histogram | None) -> list[str]:
    """A histogram in text."""
    if lengths is None:
        return []
    most = max(lengths.counts)
    return [
        f"{low:>7,} to {high - 1:>7,}  {'█' * round(BAR * count / most):<{BAR}} {count:,}"
        for low, high, count in zip(lengths.edges, lengths.edges[1:], lengths.counts, strict=False)
    ]
