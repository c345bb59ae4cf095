"""Curves of growth and bars of where a step's time goes, as SVG."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Curve, Profile
from benchmarks.results import Results

SIDES = ("before", "after")


def draw(results: Results, folder: Path) -> list[tuple[str, Path]]:
    """(title, file) of every plot; curves of the same thing and unit share one."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same figures give the same file
    founds = [result.found for result in results.results if result.found is not None]
    shared: dict[tuple[str, str], list[Curve]] = {}
    for found in founds:
        for curve in found.curves:
            shared.setdefault((curve.what, curve.unit), []).append(curve)
    drawn = [
        (what, _saved(_growth(curves), folder / f"{_slug(f'{what} {unit}')}.svg"))
        for (what, unit), curves in shared.items()
    ]
    profiles = [profile for found in founds for profile in found.profiles]
    return drawn + [
        (profile.what, _saved(_bars(profile), folder / f"{_slug(profile.what)}.svg"))
        for profile in profiles
    ]


def _growth(curves: Sequence[Curve]) -> Any:
    """Both axes logarithmic, so that linear growth has the slope of the dotted line."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.4), layout="constrained")
    for curve in curves:
        (line,) = axes.loglog(curve.sizes, curve.values, marker="o", label=curve.line)
        first, last = curve.sizes[0], curve.sizes[-1]
        linear = (curve.values[0], curve.values[0] * last / first)
        axes.loglog((first, last), linear, ":", color=line.get_color(), linewidth=0.8)
    axes.set(xlabel=curves[0].of, ylabel=f"{curves[0].unit} (dotted: linear)")
    axes.legend(fontsize=8)
    return figure


def _bars(profile: Profile) -> Any:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 2.2), layout="constrained")
    parts = dict.fromkeys([*profile.before, *profile.after])
    left = [0.0, 0.0]
    for part in parts:
        widths = [side.get(part, 0.0) for side in (profile.before, profile.after)]
        axes.barh(SIDES, widths, left=left, label=part)
        left = [at + width for at, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="CPU-seconds")
    axes.legend(fontsize=8, ncols=5, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")
