"""Which rows are taken: exact shares, seeded samples."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntune.data.mix import generator, sample, shares

SOURCES = st.lists(
    st.tuples(st.integers(0, 100), st.integers(1, 40).map(lambda tenths: tenths / 10)),
    min_size=1,
    max_size=5,
)


@given(SOURCES)
@settings(deadline=None, max_examples=60)
def test_shares_are_floors_of_the_largest_total_that_no_source_runs_out_of(sources):
    counts, weights = [count for count, _ in sources], [weight for _, weight in sources]
    taken = shares(counts, weights)
    if len(set(weights)) == 1:
        assert taken == counts
        return
    exact = [Fraction(str(weight)) for weight in weights]
    floors = [0] * len(counts)
    total = 0
    while all(floor <= count for floor, count in zip(floors, counts, strict=True)):
        best, total = floors, total + 1
        floors = [int(total * weight / sum(exact)) for weight in exact]
    assert taken == best


def test_weights_are_read_as_they_are_written():
    """As binary fractions 0.7 / (0.7 + 0.3) of 10 rows would be 6.999..."""
    assert shares([7, 100], [0.7, 0.3]) == [7, 3]


def test_equal_weights_take_everything():
    assert shares([10, 3], [2.5, 2.5]) == [10, 3]


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 2**32))
@settings(deadline=None)
def test_a_sample_ascends_without_repeats(count, wanted, seed):
    taken = sample(count, wanted, generator(seed, 0, "test"))
    assert len(taken) == min(count, wanted)
    assert (np.diff(taken) > 0).all()
    assert ((taken >= 0) & (taken < count)).all()


def test_a_sample_is_not_the_first_rows():
    assert sample(1000, 10, generator(1, 0, "test")).max() > 500


@pytest.mark.parametrize("other", [(2, 0, "a"), (1, 1, "a"), (1, 0, "b")])
def test_every_purpose_has_random_numbers_of_its_own(other):
    assert generator(1, 0, "a").random() != generator(*other).random()


def test_random_numbers_do_not_depend_on_the_library():
    """Otherwise every data artifact changes with numpy."""
    assert sample(100, 5, generator(42, 0, "percent")).tolist() == [9, 55, 66, 72, 99]
