"""What the tests of training share."""

import pytest
from rollouts import teach_sums


@pytest.fixture(scope="session")
def worker(tiny_model, tmp_path_factory):
    """The tiny model, after learning to add up some digits before it answers with any."""
    return teach_sums(tiny_model, tmp_path_factory.mktemp("worker") / "model")
