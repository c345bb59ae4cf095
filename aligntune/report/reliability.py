"""A reliability diagram: how sure a model is of which answer is better, against how often it is
right. All that is drawn are numbers."""

from collections.abc import Sequence

from aligntune.evaluate.reward_model_scores import Bin

SIZE = 320
LEFT, TOP, SIDE = 48, 28, 248
TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LARGEST = 9.0
"""Radius of the dot of the fullest bin; areas are proportional to pairs."""


def diagram(bins: Sequence[Bin], error: float) -> str:
    """SVG with a dot per bin, the diagonal where a calibrated model's would lie, and the expected
    calibration `error`. Accuracies below 0.5 lie on the lower edge."""
    most = max(bin.count for bin in bins)
    dots = "".join(
        f'<circle cx="{_x(bin.confidence):.1f}" cy="{_y(bin.accuracy):.1f}" '
        f'r="{max(LARGEST * (bin.count / most) ** 0.5, 2):.1f}"><title>{bin.count} pairs: '
        f"{bin.confidence:.1%} sure, {bin.accuracy:.1%} right</title></circle>"
        for bin in bins
    )
    ticks = "".join(
        f'<text x="{_x(tick):.1f}" y="{TOP + SIDE + 16}" text-anchor="middle">{tick:.0%}</text>'
        f'<text x="{LEFT - 6}" y="{_y(tick) + 4:.1f}" text-anchor="end">{tick:.0%}</text>'
        for tick in TICKS
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" width="{SIZE}" '
        f'height="{SIZE}" font-family="sans-serif" font-size="11">'
        f'<rect width="{SIZE}" height="{SIZE}" fill="#fff"/>'
        f'<text x="{LEFT}" y="16">expected calibration error {error:.3f}</text>'
        f'<rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#bbb"/>'
        f'<path d="M{LEFT} {TOP + SIDE}L{LEFT + SIDE} {TOP}" stroke="#bbb" stroke-dasharray="4"/>'
        f'<g fill="#2563a8" fill-opacity=".8">{dots}</g><g fill="#444">{ticks}'
        f'<text x="{LEFT + SIDE / 2}" y="{SIZE - 12}" text-anchor="middle">how sure it is</text>'
        f'<text transform="translate(12 {TOP + SIDE / 2}) rotate(-90)" text-anchor="middle">'
        "how often it is right</text></g></svg>\n"
    )


def _x(share: float) -> float:
    return LEFT + (share - 0.5) * 2 * SIDE


def _y(share: float) -> float:
    return TOP + SIDE - (max(share, 0.5) - 0.5) * 2 * SIDE
