"""Which packages are there, said quickly and exactly."""

from importlib.metadata import distributions

from aligntune.provenance import installed


def test_every_installed_package_is_named_with_its_version():
    slowly = {(found.metadata["Name"], found.version) for found in distributions()}
    listed = [tuple(line.split("==")) for line in installed().splitlines()]
    assert set(listed) == slowly
    assert [name for name, _ in listed] == sorted((name for name, _ in listed), key=str.lower)
