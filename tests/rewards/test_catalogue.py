"""What is said of the built-in rewards is what they are."""

import pytest

from aligntune.rewards import REWARDS, by_model, own
from aligntune.rewards.describe import described


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_says_what_it_is_and_each_of_its_params(name):
    known, text = REWARDS[name], described(name)
    assert known.says in text
    if known.path and not known.embeds:
        assert all(f"\n  {key}: " in text for key in own(known))
    if known.label is not None:
        assert all(f"\n  {key}: " in text for key in by_model(known))
    low, _, high = known.range.partition("..")
    assert known.path == "" or (low in text and high in text)
