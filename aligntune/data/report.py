"""What the data stage has to say of its sources, as data: `report.json`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from aligntune.artifacts import write_atomic
from aligntune.config.data import TaskType

FILE = "report.json"
Cause = Literal["invalid", "duplicates", "near_duplicates", "too_long", "contaminated"]
"""Why a row is dropped; the first that applies counts."""
CAUSES: tuple[Cause, ...] = get_args(Cause)


@dataclass(frozen=True)
class Histogram:
    """Of whole numbers."""

    edges: tuple[int, ...]
    """One more than counts; a count is of edges[i] <= value < edges[i + 1]."""
    counts: tuple[int, ...]
    mean: float
    p50: float
    p95: float
    p99: float
    max: int


@dataclass(frozen=True)
class SourceReport:
    """read = not_sampled + dropped + kept; kept rows that are in neither split fell to `weight`, or
    were more than `max_heldout`."""

    name: str
    split: str
    kind: Literal["train", "heldout"]
    """`heldout`: all of it is another source's `eval_split`."""
    fingerprint: str
    format: str
    task: TaskType
    read: int
    not_sampled: int
    dropped: Mapping[Cause, int]
    """By cause."""
    truncated: int
    """Kept, but longer than `max_length`."""
    kept: int
    train: int
    heldout: int
    lengths: Histogram | None
    """In tokens, of kept rows."""
    looked_at: int
    """Kept rows that labels and languages were counted on, a seeded sample."""
    labels: Mapping[str, int]
    languages: Mapping[str, float] | None
    """Share by ISO 639 code; None without the package that finds them."""
    samples: tuple[str, ...]
    """Rows in the chat template."""
    reasons: tuple[tuple[str, int, str], ...]
    """(why rows are invalid, how many, where the first is), the commonest."""
    subset: str | None = None
    unread: tuple[str, ...] = ()
    """Columns that no message is made of."""


@dataclass(frozen=True)
class DataReport:
    task: TaskType
    rows: Mapping[str, int]
    """By split."""
    digests: Mapping[str, str]
    rule: str
    """How the sizes came about."""
    max_length: int | None
    sources: tuple[SourceReport, ...]


MAX_SAMPLES = 800_000
"""Characters of all samples together, so that a report of many sources stays small."""
MAX_SAMPLE = 2000
"""Characters of one sample."""
# Legal in JSON only as escapes, or apt to change how the text around them is shown.
_ODD = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def histogram(values: Sequence[int]) -> Histogram | None:
    """Counts between powers of two; None of nothing."""
    if not len(values):
        return None
    import numpy as np

    found = np.asarray(values)
    top = int(found.max()).bit_length()
    bottom = max(int(found.min()).bit_length() - 1, 0)
    edges = [0 if power == 0 else 2**power for power in range(bottom, top + 1)]
    edges = edges if len(edges) > 1 else [*edges, edges[0] + 1]
    counts, _ = np.histogram(found, bins=edges)
    p50, p95, p99 = np.percentile(found, [50, 95, 99])
    return Histogram(
        tuple(edges), tuple(map(int, counts)), float(found.mean()), float(p50), float(p95),
        float(p99), int(found.max()),
    )  # fmt: skip


def facts(source: SourceReport) -> dict[str, Any]:
    """What a manifest keeps of a source: no text of its rows."""
    plain = asdict(source)
    dropped = plain.pop("dropped")
    for name in ("lengths", "looked_at", "labels", "languages", "samples", "reasons", "unread"):
        del plain[name]
    return {**plain, **dropped}


def write(report: DataReport, out: Path) -> None:
    """report.json in `out`, with as many samples of each source as there is room for."""
    text = json.dumps(asdict(_fitting(report)), indent=1, ensure_ascii=False)
    write_atomic(out / FILE, _ODD.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _fitting(report: DataReport) -> DataReport:
    room = max(MAX_SAMPLES // (MAX_SAMPLE * max(len(report.sources), 1)), 1)
    return replace(
        report,
        sources=tuple(
            replace(source, samples=tuple(text[:MAX_SAMPLE] for text in source.samples[:room]))
            for source in report.sources
        ),
    )


def read(folder: Path) -> DataReport:
    """What `write` wrote to `folder`."""
    plain = json.loads((folder / FILE).read_text(encoding="utf-8"))
    plain["sources"] = tuple(_source(source) for source in plain["sources"])
    return DataReport(**plain)


def _source(plain: dict[str, Any]) -> SourceReport:
    lengths = plain["lengths"]
    if lengths:
        lengths |= {name: tuple(lengths[name]) for name in ("edges", "counts")}
    reasons = tuple((reason, count, place) for reason, count, place in plain["reasons"])
    return SourceReport(
        **plain
        | {
            "lengths": Histogram(**lengths) if lengths else None,
            "samples": tuple(plain["samples"]),
            "reasons": reasons,
            "unread": tuple(plain.get("unread", ())),
        }
    )
