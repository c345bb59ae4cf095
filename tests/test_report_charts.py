"""Charts and numbers of a report, with odd data."""

import math
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntune.report import charts, words
from aligntune.report.types import Curve, EvaluationRow


def test_a_curve_of_one_point_is_a_dot():
    chart = charts.curve_chart(Curve("sft", "loss", [120], [3.25]))
    assert chart.path.endswith("h0")
    assert chart.last is not None
    assert chart.last.text == "3.250 at step 120"
    assert [tick.text for tick in chart.x_ticks] == ["120"]


def test_a_constant_curve_is_a_level_line_inside_the_plot():
    chart = charts.curve_chart(Curve("sft", "learning_rate", [1, 2, 3], [5e-6] * 3))
    heights = {float(y) for y in re.findall(r" (\S+?)(?=[ML]|$)", chart.path)}
    assert len(heights) == 1
    assert charts.TOP < heights.pop() < charts.BOTTOM
    assert chart.lowest is None


def test_values_that_are_not_finite_are_gaps_and_are_counted():
    values = [1.0, 2.0, math.nan, 3.0, math.inf, 2.0, 1.0]
    chart = charts.curve_chart(Curve("sft", "loss", range(7), values))
    assert chart.path.count("M") == 3
    assert chart.path.count("h0") == 1
    assert chart.gaps == 2
    assert "nan" not in chart.path


def test_a_long_curve_is_thinned_but_keeps_its_spikes_and_long_gaps():
    values = [random.Random(0).gauss(1, 0.01) for _ in range(50_000)]
    values[31_313] = 9.0
    values[40_000:42_000] = [math.nan] * 2_000
    chart = charts.curve_chart(Curve("sft", "loss", range(50_000), values))
    heights = [float(y) for y in re.findall(r" (\S+?)(?=[ML]|$)", chart.path)]
    assert len(chart.path) < 20_000
    assert min(heights) < min(tick.at for tick in chart.y_ticks) + 15
    assert chart.path.count("M") == 2


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats()), max_size=30))
def test_any_curve_stays_inside_its_plot(points):
    points.sort(key=lambda point: point[0])
    chart = charts.curve_chart(Curve("a", "b", *([p[i] for p in points] for i in (0, 1))))
    for x, y in re.findall(r"[ML](\S+) (\d+\.?\d*)", chart.path):
        assert charts.LEFT <= float(x) <= charts.RIGHT
        assert charts.TOP <= float(y) <= charts.BOTTOM
    labels = [tick.text for tick in chart.y_ticks]
    assert len(labels) <= 6


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(), st.floats(), st.floats()), max_size=4))
def test_any_interval_stays_inside_its_plot(triples):
    rows = [
        EvaluationRow("nll", str(i), mean, low, high, 9, higher_is_better=False)
        for i, (mean, low, high) in enumerate(triples)
    ]
    for chart in charts.interval_charts(rows):
        for drawn in chart.intervals:
            for x in (drawn.low, drawn.mean, drawn.high):
                assert 0 <= x <= charts.WIDTH


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (0.12345, "0.123"), (1.23456, "1.235"), (12345.6, "12,346"),
        (-2.0, "-2"), (5e-6, "5e-6"), (1e12, "1e12"), (math.nan, "not finite"), (0.0123, "0.0123"),
    ],
)  # fmt: skip
def test_numbers_have_about_four_digits(value, text):
    assert words.number(value).replace(words.MINUS, "-") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.84, "0.8 s"), (12, "12 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"),
        (3725, "1 h 02 min"), (200_000, "2 d 7 h"), (math.nan, "not finite"),
    ],
)  # fmt: skip
def test_durations_have_two_units_at_most(seconds, text):
    assert words.duration(seconds).replace(words.SPACE, " ") == text
