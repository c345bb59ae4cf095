"""The table of all figures in Markdown, and its place in a README."""

import math
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import TOLERANCE, Figure
from benchmarks.results import Results

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
COLUMNS = ("what", "ours", "peer", "ratio", "goal", "", "limit")


def number(value: float) -> str:
    """Three significant digits, no exponent for what people count: 0.0123, 4.56, 12,300."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.{digits}f}" if digits > 0 else f"{rounded:,.0f}"


def goal(figure: Figure) -> str:
    return f"{'≤' if figure.at_most else '≥'} {figure.goal:g}"


def verdict(figure: Figure) -> str:
    """Whether the goal is met, and where it is not, by how much of itself."""
    off = figure.ratio / figure.goal - 1
    missed = off if figure.at_most else -off
    if missed <= 0:
        return "met"
    by = f"{100 * missed:.0f} %"
    return f"{by} short" if not figure.met else f"{by} off, within noise ({TOLERANCE:.0%})"


def limit(figure: Figure) -> str:
    """What bounds it and why it is missed; that nobody said why is said too."""
    said = ". ".join(part.rstrip(".") for part in (figure.limit, figure.note) if part)
    return said or ("" if figure.met else "no reason is given")


def cells(figure: Figure) -> tuple[str, ...]:
    unit = f" {figure.unit}" if figure.unit else ""
    return (
        figure.what,
        number(figure.ours) + unit,
        f"{number(figure.peer)}{unit}, {figure.against}",
        number(figure.ratio),
        goal(figure),
        verdict(figure),
        limit(figure),
    )


def rows(results: Results) -> Iterator[tuple[str, ...]]:
    """One per figure, and one per topic that failed."""
    for result in results.results:
        if result.found is None:
            yield (result.topic, "", "", "", "", "failed", result.error)
        else:
            yield from (cells(figure) for figure in result.found.figures)


def told(results: Results) -> str:
    """When and on what."""
    dates = sorted({result.date for result in results.results})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "nothing measured"
    small = ". Small sizes, which show that it runs and nothing else" if results.small else ""
    return f"{when}: {results.machine}; {results.versions}; one thread{small}."


def markdown(results: Results) -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows(results)]
    table = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
    return f"{table}\n\n{told(results)}\n"


def put_into(readme: Path, results: Results) -> None:
    """Replace what stands between the two markers."""
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{readme} has no {BEGIN} ... {END}")
    readme.write_text(f"{before}{BEGIN}\n{markdown(results)}{END}{after}")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
