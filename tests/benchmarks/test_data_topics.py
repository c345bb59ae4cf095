"""The benchmarks of data, evaluation and growth run, and say what they should."""

import math

import pytest
from benchmarks.__main__ import measured
from benchmarks.growth import curve, exponent, figure


@pytest.mark.slow
@pytest.mark.parametrize(("topic", "figures"), [("data", 6), ("evaluation", 4), ("growth", 8)])
def test_a_topic_finds_its_figures(tmp_path, topic, figures):
    result = measured(topic, tmp_path, small=True)
    assert result.found, (tmp_path / f"{topic}.log").read_text()
    assert len(result.found.figures) == figures
    assert all(math.isfinite(found.ratio) for found in result.found.figures)
    assert all(min(found.values) > 0 for found in result.found.curves)


@pytest.mark.parametrize(("power", "met"), [(0.5, True), (1.0, True), (1.1, True), (1.3, False)])
def test_what_grows_faster_than_linear_is_told(power, met):
    taken = {size: size**power for size in (1000.0, 10.0, 100.0)}
    assert exponent(taken) == pytest.approx(power)
    assert figure("it", taken).met == met
    assert curve("it", "a line", "rows", "s", taken).sizes == (10, 100, 1000)


def test_a_fixed_cost_does_not_hide_growth_at_the_largest_sizes():
    taken = {10.0: 100.0, 100.0: 110.0, 1000.0: 1100.0}
    assert exponent(taken) == pytest.approx(1.0)
