"""Rewards that run at every step are not what a step waits for."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("rates", Path(__file__).with_name("rewards.py"))
rates = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(rates)
SLOW = {"code_execution": 28, "math, formulas": 250}
"""Texts per second that the docstrings admit: starting a Python, and math-verify."""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(rates.WITHOUT_MODEL) - SLOW.keys()))
def test_a_thousand_texts_per_cpu_second(name):
    if package := rates.NEEDS.get(name):
        pytest.importorskip(package, reason=f"{package} is not installed")
    assert rates.rate(name) > 1000


@pytest.mark.parametrize("name", SLOW)
def test_what_is_slower_says_so(name):
    from aligntune.rewards.describe import described

    assert f"{SLOW[name]} per" in " ".join(described(name.partition(",")[0]).split())
