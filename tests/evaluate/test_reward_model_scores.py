"""What is said of a reward model: calibration, and whether it only goes by length."""

import numpy as np
import pytest

from aligntune.errors import DataError
from aligntune.evaluate.reward_model_scores import (
    correlation,
    normalization,
    of_pairs,
    of_scores,
    reliability,
)
from aligntune.report.reliability import diagram

LENGTHS = ([50, 40, 10, 12, 30, 31], [20, 10, 40, 60, 31, 30])
"""Two chosen answers that are longer, two that are shorter, two about as long."""


def table(chosen, rejected, lengths=LENGTHS, prompts=None):
    asked = range(len(chosen)) if prompts is None else prompts
    found, _ = of_pairs(np.array(chosen, float), np.array(rejected, float), lengths, asked, seed=1)
    return found


def test_a_model_that_goes_by_length_is_seen():
    found = table(*LENGTHS)
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["accuracy/chosen_longer"] == 1
    assert found["accuracy/chosen_shorter"] == 0
    assert found["accuracy/similar_length"] == 0.5
    assert found["length_correlation"] == pytest.approx(1)
    assert found["longer_wins"] == 0.5
    assert {found[f"accuracy/{side}/count"] for side in ("chosen_longer", "chosen_shorter")} == {2}


def test_a_model_that_goes_by_the_answer_is_right_whatever_the_length():
    found = table([1.0] * 6, [0.0] * 6)
    assert [found[f"accuracy/{side}"] for side in ("chosen_longer", "chosen_shorter")] == [1, 1]
    assert found["length_correlation"] == 0
    assert found["accuracy/low"] < 0.7 < found["accuracy"] == found["accuracy/high"] == 1
    assert found["margin"] == 1


def test_what_no_pair_is_has_no_accuracy_and_equal_scores_count_half():
    found = table([1.0, 0.5], [0.0, 0.5], ([9, 8], [1, 2]))
    assert found["accuracy"] == 0.75
    assert "accuracy/chosen_shorter" not in found


def test_pairs_of_one_prompt_are_no_more_evidence_than_one():
    generator = np.random.default_rng(0)
    margin, lengths = generator.normal(0.3, 1, 50), generator.integers(5, 50, (2, 50))
    once = table(margin, np.zeros(50), lengths)
    four = np.repeat(lengths, 4, axis=1)
    often = table(np.repeat(margin, 4), np.zeros(200), four, np.repeat(range(50), 4))
    intervals = [name for name in once if name.startswith(("accuracy", "margin"))]
    assert {name: often[name] for name in intervals} == pytest.approx(
        {name: once[name] for name in intervals}
    )
    error = np.repeat(margin, 4)
    squared, _ = of_scores(error, np.zeros(200), [1] * 200, np.repeat(range(50), 4), seed=1)
    assert squared["squared_error/count"] == 50


def calibrated(count, sharpen=1.0, seed=0):
    """Margins of pairs that are ordered as often as their sigmoid says."""
    generator = np.random.default_rng(seed)
    margin = generator.normal(0, 2, count)
    first = generator.random(count) < 1 / (1 + np.exp(-margin))
    return np.where(first, margin, -margin) * sharpen


def error(margin):
    count = len(margin)
    found, _ = of_pairs(margin, np.zeros(count), ([1] * count,) * 2, range(count), seed=1)
    return found["ece"]


def test_a_calibrated_model_has_almost_no_error_and_one_that_is_too_sure_has():
    assert error(calibrated(20_000)) < 0.02
    assert error(calibrated(20_000, sharpen=5.0)) > 0.1


def test_bins_hold_every_pair_once():
    bins = reliability(calibrated(1000))
    assert sum(bin.count for bin in bins) == 1000
    assert all(0.5 <= bin.confidence <= 1 and 0 <= bin.accuracy <= 1 for bin in bins)
    assert [bin.confidence for bin in bins] == sorted(bin.confidence for bin in bins)


def test_the_diagram_has_a_dot_per_bin_and_is_well_formed():
    from xml.etree import ElementTree

    bins = reliability(calibrated(1000))
    drawing = ElementTree.fromstring(diagram(bins, 0.012))
    dots = [node for node in drawing.iter() if node.tag.endswith("circle")]
    assert len(dots) == len(bins)
    assert "calibration error 0.012" in diagram(bins, 0.012)


def test_scores_are_compared_with_those_that_they_should_be():
    wanted = np.array([1.0, 2.0, 3.0, 4.0])
    found, _ = of_scores(wanted + 0.5, wanted, [4, 3, 2, 1], range(4), seed=1)
    assert found["squared_error"] == pytest.approx(0.25)
    assert found["r2"] == pytest.approx(1 - 0.25 / 1.25)
    assert found["correlation"] == pytest.approx(1)
    assert found["length_correlation"] == pytest.approx(-1)


def test_what_does_not_vary_has_no_correlation():
    assert correlation(np.ones(3), np.array([1.0, 2.0, 3.0])) == 0


def test_scores_that_are_all_alike_cannot_be_normalised():
    assert normalization([1.0, 3.0]) == {"mean": 2.0, "std": 1.0, "count": 2}
    with pytest.raises(DataError, match="all 2 held-out reference answers alike"):
        normalization([1.0, 1.0])
