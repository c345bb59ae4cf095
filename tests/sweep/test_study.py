"""Optuna as the source of combinations: seeded, resumed, failures tried again."""

import math

import pytest

from aligntune.sweep.axes import space
from aligntune.sweep.study import asked

pytest.importorskip("optuna")
AXES = space(["a=log:1e-6..1e-2", "b=int:1..9", "c=x,y"]).axes


def loss(point):
    return (math.log10(float(point["a"])) + 4) ** 2 + int(point["b"]) + (point["c"] == "x")


def run(file, count, *, stop=None, fails=()):
    """The points of a command; `stop` kills it while that one runs."""
    seen = []
    for number, trial in enumerate(asked(AXES, "nll", count, 0, file)):
        seen.append(tuple(trial.point.values()))
        if number == stop:
            return seen
        trial.tell(None if number in fails else loss(trial.point))
    return seen


def test_an_interrupted_study_goes_on_as_if_it_had_not_been(tmp_path):
    whole = run(tmp_path / "whole.db", 14)
    assert len(set(whole)) == 14
    assert run(tmp_path / "cut.db", 14, stop=4) == whole[:5]
    assert run(tmp_path / "cut.db", 14, stop=12) == whole[:13]
    assert run(tmp_path / "cut.db", 14) == whole
    assert run(tmp_path / "cut.db", 14) == whole, "nothing is left, and all are known"
    assert run(tmp_path / "cut.db", 15)[:14] == whole


def test_a_failed_trial_is_tried_again(tmp_path):
    first = run(tmp_path / "study.db", 4, fails=[1])
    again = run(tmp_path / "study.db", 4)
    assert sorted(again) == sorted(first)
    assert again[-1] == first[1]
    assert run(tmp_path / "study.db", 4) == again


def test_it_looks_where_the_loss_is_low(tmp_path):
    points = run(tmp_path / "study.db", 40)
    losses = [loss(dict(zip("abc", point, strict=True))) for point in points]
    assert sum(losses[30:]) < 0.6 * sum(losses[:10])


def test_other_values_are_another_study(tmp_path):
    run(tmp_path / "study.db", 3)
    other = space(["a=log:1e-5..1e-2", "b=int:1..9", "c=x,y"]).axes
    (first, *_) = asked(other, "nll", 1, 0, tmp_path / "study.db")
    assert float(first.point["a"]) >= 1e-5
