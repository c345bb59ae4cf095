"""Where the lines, dots and ticks of a chart go, in SVG units. The template draws them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aligntune.report import words
from aligntune.report.compared import Line, Overlay
from aligntune.report.types import Curve, EvaluationRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CURVES = (
    "train/loss",
    "eval/loss",
    "train/reward",
    "train/kl",
    "train/entropy",
    "train/completions/mean_length",
    "train/mean_token_accuracy",
    "train/rewards/accuracies",
    "train/rewards/margins",
    "train/accuracy",
    "eval/accuracy",
    "train/margin",
    "train/grad_norm",
)
"""Training metrics that are worth a chart, in this order; MLflow has all of them."""
WIDTH = 300
LEFT, RIGHT = 42, 294
TOP, BOTTOM = 8, 132
"""Plot area of a curve."""
INSET = 14
"""What the first and last tick label of an interval plot need at each side."""
ROW = 38
"""Height of one model in an interval plot."""
BUCKETS = 250
"""A curve is thinned to at most four points in each."""
FEWEST_BUCKETS = 40
"""Of each of many curves in one chart."""

LARGEST = 1e100
"""Beyond this a difference of two values may overflow."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class CurveChart:
    curve: Curve
    path: str
    """SVG path data, one subpath between two gaps; empty where no value is finite."""
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    last: Dot | None
    lowest: Dot | None
    """None also where the last value is the lowest."""
    gaps: int
    """Values that are not finite."""


@dataclass(frozen=True, slots=True)
class Interval:
    row: EvaluationRow
    y: float
    low: float
    mean: float
    high: float


@dataclass(frozen=True, slots=True)
class IntervalChart:
    metric: str
    higher_is_better: bool
    intervals: tuple[Interval, ...]
    ticks: tuple[Tick, ...]
    height: float


def curve_chart(curve: Curve) -> CurveChart:
    points = list(zip(curve.steps, curve.values, strict=True))
    finite = [(step, value) for step, value in points if _drawable(value)]
    gaps = len(points) - len(finite)
    if not finite:
        return CurveChart(curve, "", (), (), None, None, gaps)
    values = [value for _, value in finite]
    y_ticks = _ticks(min(values), max(values), 3)
    steps = [step for step, _ in points]
    x = _scale(min(steps), max(steps), LEFT, RIGHT)
    y = _scale(y_ticks[0], y_ticks[-1], BOTTOM, TOP)

    lowest = min(finite, key=lambda point: point[1])

    def dot(point: tuple[int, float]) -> Dot:
        step, value = point
        return Dot(x(step), y(value), f"{words.number(value)} at step {step:,}")

    return CurveChart(
        curve,
        _path([(x(step), y(value)) if _drawable(value) else None for step, value in thin(points)]),
        _labelled([s for s in _ticks(min(steps), max(steps), 3) if _between(steps, s)], x),
        _labelled(y_ticks, y),
        dot(finite[-1]),
        dot(lowest) if lowest[1] < finite[-1][1] else None,
        gaps,
    )


@dataclass(frozen=True, slots=True)
class DrawnLine:
    runs: tuple[int, ...]
    path: str
    last: Dot | None


@dataclass(frozen=True, slots=True)
class OverlayChart:
    overlay: Overlay
    lines: tuple[DrawnLine, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    gaps: int


def overlay_chart(overlay: Overlay) -> OverlayChart:
    """All lines on the scale that holds them all; many lines get fewer points each."""
    import numpy as np

    every = np.array([v for line in overlay.lines for v in line.values], dtype=np.float64)
    drawable = _all_drawable(every)
    gaps = int((~drawable).sum())
    if not drawable.any():
        return OverlayChart(overlay, (), (), (), gaps)
    values = every[drawable]
    steps = [step for line in overlay.lines for step in line.steps]
    y_ticks = _ticks(float(values.min()), float(values.max()), 3)
    low, high = min(steps), max(steps)
    x, y = _scale(low, high, LEFT, RIGHT), _scale(y_ticks[0], y_ticks[-1], BOTTOM, TOP)
    buckets = max(BUCKETS // len(overlay.lines), FEWEST_BUCKETS)

    def drawn(line: Line) -> DrawnLine:
        points = list(thin(list(zip(line.steps, line.values, strict=True)), buckets))
        placed = [(x(step), y(value)) if _drawable(value) else None for step, value in points]
        ends = [(step, value) for step, value in points if _drawable(value)]
        dot = None
        if ends:
            step, value = ends[-1]
            dot = Dot(x(step), y(value), f"{words.number(value)} at step {step:,}")
        return DrawnLine(line.runs, _path(placed), dot)

    x_ticks = [tick for tick in _ticks(low, high, 3) if _between((low, high), tick)]
    return OverlayChart(
        overlay,
        tuple(drawn(line) for line in overlay.lines),
        _labelled(x_ticks, x),
        _labelled(y_ticks, y),
        gaps,
    )


def interval_charts(rows: Sequence[EvaluationRow]) -> list[IntervalChart]:
    """One chart per metric, in the order given; a model without finite numbers has no dot."""
    metrics = dict.fromkeys(row.metric for row in rows)
    return [_interval_chart([row for row in rows if row.metric == metric]) for metric in metrics]


def _interval_chart(rows: list[EvaluationRow]) -> IntervalChart:
    first = rows[0]
    drawn = [row for row in rows if all(map(_drawable, (row.low, row.mean, row.high)))]
    ends = [end for row in drawn for end in (row.low, row.mean, row.high)]
    ticks = _ticks(min(ends), max(ends), 4) if ends else [0.0, 1.0]
    x = _scale(ticks[0], ticks[-1], INSET, WIDTH - INSET)
    return IntervalChart(
        first.metric,
        first.higher_is_better,
        tuple(
            Interval(row, ROW * index + 25, x(row.low), x(row.mean), x(row.high))
            for index, row in enumerate(drawn)
        ),
        _labelled(ticks, x, percent=first.unit == "%"),
        ROW * len(drawn) + 22,
    )


def _drawable(value: float) -> bool:
    return math.isfinite(value) and abs(value) < LARGEST


def _between(steps: Sequence[int], tick: float) -> bool:
    return min(steps) <= tick <= max(steps) and tick == int(tick)


def _ticks(low: float, high: float, intervals: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `intervals` + 1 of them."""
    size = max(abs(low), abs(high))
    if size < 1e-100:
        low, high = -1.0, 1.0
    elif high - low < 1e-9 * size:
        low, high = low - 0.1 * size, high + 0.1 * size
    rough = (high - low) / intervals
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _labelled(
    ticks: Sequence[float], place: Callable[[float], float], *, percent: bool = False
) -> tuple[Tick, ...]:
    factor = 100 if percent else 1
    step = (ticks[1] - ticks[0]) * factor if len(ticks) > 1 else 1
    size = max((abs(tick) for tick in ticks), default=0) * factor
    # Enough decimals to tell neighbours apart, or four digits and an exponent.
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    form = f",.{decimals}f" if size < 1e6 and decimals <= 4 else ".4g"
    suffix = f"{words.SPACE}%" if percent else ""
    return tuple(
        Tick(place(tick), words.typeset(f"{tick * factor + 0.0:{form}}") + suffix) for tick in ticks
    )


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """From [low, high] to [start, end], to a tenth; the middle where there is only one value."""
    if high <= low:
        return lambda _: (start + end) / 2
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 1)


def thin(
    points: Sequence[tuple[int, float]], buckets: int = BUCKETS
) -> Iterator[tuple[int, float]]:
    """`points`, or of each bucket the first, lowest, highest and last: spikes stay visible.

    A bucket with no finite value gives one point that is not, and so a gap.
    """
    size = math.ceil(len(points) / buckets)
    if size <= 1:
        yield from points
        return
    import numpy as np

    count = math.ceil(len(points) / size)
    padded = np.full(count * size, math.nan)
    padded[: len(points)] = [value for _, value in points]
    values = padded.reshape(count, size)
    drawable = _all_drawable(values)
    kept = np.stack(
        [
            drawable.argmax(axis=1),
            np.where(drawable, values, math.inf).argmin(axis=1),
            np.where(drawable, values, -math.inf).argmax(axis=1),
            size - 1 - drawable[:, ::-1].argmax(axis=1),
        ],
        axis=1,
    )
    for number, row in enumerate(drawable):
        places = sorted(set(kept[number].tolist())) if row.any() else [0]
        yield from (points[number * size + place] for place in places)


def _all_drawable(values: "NDArray[np.float64]") -> "NDArray[np.bool_]":
    import numpy as np

    drawable: NDArray[np.bool_] = np.isfinite(values) & (np.abs(values) < LARGEST)
    return drawable


def _path(points: Sequence[Point | None]) -> str:
    """Lines through neighbouring points; one alone between gaps is a line of no length, a dot."""
    parts: list[str] = []
    pen_down = False
    for index, point in enumerate(points):
        if point is None:
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{point[0]:g} {point[1]:g}")
        alone = not pen_down and (index + 1 == len(points) or points[index + 1] is None)
        if alone:
            parts.append("h0")
        pen_down = True
    return "".join(parts)
