import pytest

from aligntune.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """(exit code, standard output, standard error) of a command, as a shell would see it."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["aligntune", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
