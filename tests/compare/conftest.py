import pytest
from past import Past


@pytest.fixture
def past(tmp_path):
    """An output directory to put runs into."""
    return Past(tmp_path / "out")
