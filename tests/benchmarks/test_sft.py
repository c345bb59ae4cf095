"""The benchmark of SFT's step runs, and sees the same tokens on all sides."""

import math

import pytest
from benchmarks.__main__ import measured


@pytest.mark.slow
def test_it_finds_its_figures_and_a_profile(tmp_path):
    result = measured("sft", tmp_path, small=True)
    assert result.found, (tmp_path / "sft.log").read_text()
    assert len(result.found.figures) == 7
    assert all(math.isfinite(found.ratio) and found.ratio > 0 for found in result.found.figures)
    (profile,) = result.found.profiles
    assert profile.before.keys() == profile.after.keys()
    assert sum(profile.after.values()) < sum(profile.before.values())
