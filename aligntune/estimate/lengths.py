"""How long the rows of a data stage are, by its report."""

import json
from dataclasses import dataclass
from pathlib import Path

REPORT = "report.json"


@dataclass(frozen=True)
class Lengths:
    """Of a row's longest sequence, in tokens; of its prompt, where answers are sampled."""

    longest: int
    mean: float
    rows: int
    """To train on."""


def read_lengths(data: Path) -> Lengths | None:
    """Of the rows in a data artifact; None where it has no tokens."""
    try:
        report = json.loads((data / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = [
        (source["lengths"], sum(source["lengths"]["counts"]))
        for source in report["sources"]
        if source["lengths"]
    ]
    count = sum(rows for _, rows in found)
    if not count:
        return None
    return Lengths(
        longest=max(each["max"] for each, _ in found),
        mean=sum(each["mean"] * rows for each, rows in found) / count,
        rows=report["rows"]["train"],
    )
