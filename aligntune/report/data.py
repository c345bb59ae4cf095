"""The report of a data stage as a page and as Markdown.

Every text may come from a dataset: none is trusted.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from aligntune.artifacts import write_atomic
from aligntune.config.naming import printable
from aligntune.data.report import CAUSES, DataReport, SourceReport, read
from aligntune.report import words
from aligntune.report.templates import environment

LANGUAGES = 8
"""So many are named."""
COUNTS = ("read", "not_sampled", *CAUSES, "truncated", "kept", "train", "heldout")


def write(folder: Path) -> None:
    """report.html and report.md beside the report.json in `folder`; the same report gives the same
    bytes."""
    report = read(folder)
    page = environment().get_template("data.html.j2")
    html = page.render(report=report, columns=columns(report), facts=facts, title=title)
    write_atomic(folder / "report.html", words.visible(html))
    write_atomic(folder / "report.md", markdown(report))


def columns(report: DataReport) -> list[tuple[str, list[str]]]:
    """(count, its value for each source), without counts that are 0 for all."""
    found = {name: [_count(source, name) for source in report.sources] for name in COUNTS}
    always = ("read", "invalid", "duplicates", "kept", "train")
    return [
        (name.replace("_", " "), [f"{value:,}" for value in values])
        for name, values in found.items()
        if name in always or any(values)
    ]


def _count(source: SourceReport, name: str) -> int:
    dropped = {str(cause): count for cause, count in source.dropped.items()}
    return int((vars(source) | dropped)[name])


def markdown(report: DataReport) -> str:
    """The same as text that renders on hubs and in reviews."""
    counts = columns(report)
    names = [name for name, _ in counts]
    lines = [
        "# Data",
        "",
        f"{sizes(report)}. {report.rule}",
        "",
        f"| source | format | {' | '.join(names)} |",
        f"|---|---|{'---:|' * len(names)}",
    ]
    for number, source in enumerate(report.sources):
        values = " | ".join(values[number] for _, values in counts)
        lines.append(f"| {_cell(title(source))} | {source.format} | {values} |")
    for source in report.sources:
        lines += ["", f"## {_cell(title(source))}", "", f"`{source.fingerprint}`", ""]
        lines += [f"- {_cell(fact)}" for fact in facts(source)]
        for sample in source.samples:
            lines += ["", *_fenced(sample)]
    lines += ["", *(f"{split} sha256 `{digest}`  " for split, digest in report.digests.items())]
    return "\n".join(lines) + "\n"


def facts(source: SourceReport) -> list[str]:
    """What there is to know of a source besides counts, a line each."""
    found = []
    if lengths := source.lengths:
        found.append(
            f"tokens: mean {lengths.mean:.0f}, median {lengths.p50:.0f}, 95 % {lengths.p95:.0f}, "
            f"99 % {lengths.p99:.0f}, longest {lengths.max}"
        )
    if source.labels:
        shares = ", ".join(f"{name} {count:,}" for name, count in source.labels.items())
        found.append(f"{shares} (of {source.looked_at:,})")
    if source.languages is None:
        found.append("languages: not measured; pip install 'aligntune-pipeline[languages]'")
    elif source.languages:
        found.append(f"languages: {_shares(source.languages)} (of {source.looked_at:,})")
    if source.unread:
        found.append(f"in no message, but in `sample.columns`: {', '.join(source.unread)}")
    for reason, count, place in source.reasons:
        where = "it is" if count == 1 else "the first is"
        rows = "row" if count == 1 else "rows"
        found.append(f"invalid: {reason} ({count:,} {rows}, {where} {place})")
    return found


def _shares(languages: Mapping[str, float]) -> str:
    """The commonest, and what is left."""
    commonest = list(languages.items())[:LANGUAGES]
    shown = [f"{code} {share:.1%}" for code, share in commonest]
    if others := len(languages) - len(commonest):
        left = max(1 - sum(share for _, share in commonest), 0)
        shown.append(f"{others} more {left:.1%}")
    return ", ".join(shown)


def title(source: SourceReport) -> str:
    """What a source is called."""
    name = f"{source.name} {source.subset}" if source.subset else source.name
    return name if source.split == "train" else f"{name} ({source.split})"


def sizes(report: DataReport) -> str:
    """How many rows there are of each split."""
    parts = ", ".join(f"{count:,} {split}" for split, count in report.rows.items())
    return f"{report.task} rows: {parts}"


def _fenced(text: str) -> list[str]:
    """Lines in a code block that nothing in them can end."""
    lines = [printable(line) for line in text.splitlines()]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(longest + 1, 3)
    return [f"{fence}text", *lines, fence]


def _cell(text: str) -> str:
    """Text that stays in its cell and is not markup."""
    return words.inline(text).replace("_", r"\_")
