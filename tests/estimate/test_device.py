import pytest

from aligntune.errors import ConfigError
from aligntune.estimate.device import devices


def test_a_count_a_name_and_a_size_are_devices():
    made = devices("8xh100-80GB")
    assert (made.count, made.kind) == (8, "gpu")
    assert 0.9 < made.memory / (80 * 2**30) < 1
    assert (devices("cpu-64GB").memory, devices("cpu-64GB").count) == (64 * 2**30, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("H100", "8xH100-80GB"),
        ("8xH10-80GB", "did you mean 'H100'"),
        ("0xH100-80GB", "at least one device"),
        ("8 x H100 80", "8xH100-80GB"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(text, says):
    with pytest.raises(ConfigError, match=says):
        devices(text)
