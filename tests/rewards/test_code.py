"""Programs of a policy: the right ones score, and hostile ones neither score nor escape."""

import shutil
import subprocess

import pytest

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError, DataError
from aligntune.rewards import code, sandbox, scorer, seccomp
from aligntune.rewards.types import Sample

isolated = pytest.mark.skipif(
    not sandbox.available(), reason="bubblewrap is not installed or may not make namespaces here"
)
ADD = {"function": "add", "args": [2, 3], "expected": 5}
RIGHT = "def add(a, b):\n    return a + b\n"


def score(*programs, tests=(ADD,), **params):
    judge = scorer(Reward(reward_type="code_execution", params=params))
    return judge([Sample("", code, columns={"tests": list(tests)}) for code in programs])


def test_the_sandbox_works_where_bubblewrap_does():
    """Else a sandbox of ours that is broken would only skip its tests."""
    plain = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    if not shutil.which("bwrap") or subprocess.run(plain, capture_output=True).returncode:
        pytest.skip("bubblewrap is not installed or may not make namespaces here")
    assert sandbox.available()


@isolated
@pytest.mark.parametrize(
    ("text", "tests", "expected"),
    [
        (RIGHT, [ADD], 1),
        (f"Here:\n```python\n{RIGHT}```\nDone.", [ADD], 1),
        (RIGHT, ["assert add(2, 3) == 5", "assert add('a', 'b') == 'ab'"], 1),
        (RIGHT, [ADD, {**ADD, "expected": 6}], 0),
        ("def add(a, b): return 0", [ADD], 0),
        ("def sub(a, b): return 5", [ADD], 0),
        ("def add(a, b): return (a, b)", [{**ADD, "expected": [2, 3]}], 1),
        ("def add(a, b:", [ADD], 0),
        ("", [ADD], 0),
        ("print(int(input()) * 2)", [{"input": "4", "output": "8\n"}], 1),
        ("print(int(input()) * 2)", [{"input": "4", "output": "9"}], 0),
        ("print('8 ')", [{"output": "8"}], 1),
        (RIGHT, [], None),
    ],
)
def test_a_program_scores_by_what_it_computes(text, tests, expected):
    assert score(text, tests=tests) == [expected]


@isolated
def test_a_program_may_use_threads_and_other_programs():
    text = (
        "import subprocess, threading\n"
        "def add(a, b):\n"
        "    found = []\n"
        "    thread = threading.Thread(target=lambda: found.append(a + b))\n"
        "    thread.start(); thread.join()\n"
        "    said = subprocess.run(['/bin/echo', str(found[0])], capture_output=True, text=True)\n"
        "    return int(said.stdout)\n"
    )
    assert score(text) == [1]


def test_the_filter_of_system_calls_is_known_for_what_we_know():
    for machine in ("x86_64", "aarch64"):
        filtered = seccomp.program(machine)
        assert filtered is not None
        assert len(filtered) % 8 == 0
    assert seccomp.program("riscv64") is None


@isolated
@pytest.mark.parametrize("test", ["assert add(x) == 5", "print(1)", {"output": 5}, 3])
def test_a_test_in_no_known_form_is_a_fault_of_the_data(test):
    with pytest.raises(DataError, match="column 'tests' has the test"):
        score(RIGHT, tests=[test])


def test_without_isolation_it_refuses_to_start(monkeypatch):
    monkeypatch.setattr(sandbox, "available", lambda: False)
    with pytest.raises(ConfigError, match="bubblewrap is not installed"):
        scorer(Reward(reward_type="code_execution"))
    assert score(RIGHT, "def add(a, b): return 0", isolation="none") == [1, 0]


@pytest.mark.parametrize("params", [{"isolation": "docker"}, {"timeout": 0}, {"memory": 8}])
def test_wrong_settings_are_explained(params):
    with pytest.raises(ConfigError, match="code_execution"):
        score(**params)


def test_syntax_is_python_that_parses():
    judge = scorer(Reward(reward_type="code_syntax"))
    texts = ["x = 1", "```python\nx = 1\n```", "x = ", "", "# nothing", "(" * 5000, "a\0b"]
    assert judge([Sample("", text) for text in texts]) == [1, 1, 0, 0, 0, 0, 0]


PROGRAM = "```python\nx = 1\n```"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Run:\n```bash\npip install numpy\n```\n\n" + PROGRAM, "x = 1\n"),
        (PROGRAM + "\nIt prints:\n```\n1 2\n```", "x = 1\n"),
        (PROGRAM + "\nIt prints:\n```text\n1 2\n```", "x = 1\n"),
        ("Use ```x``` so:\n" + PROGRAM, "x = 1\n"),
        ("So: " + PROGRAM, "x = 1\n"),
        ("```Python\nx = 1\n```", "x = 1\n"),
        ("```python3\nx = 1\n```", "x = 1\n"),
        ('```py title="x.py"\nx = 1```', "x = 1"),
        ("```\nx = 0\n```\nor\n```\nx = 1\n```\n```sh\nls\n```", "x = 1\n"),
        ("```python\nx = 0\n```\nbetter:\n" + PROGRAM, "x = 1\n"),
        ("1. Write\n   ```python\n   if x:\n       x = 1\n   ```", "if x:\n    x = 1\n"),
        ("```python\nx = 1\n", "x = 1\n"),
        ("x = 1", "x = 1"),
        ("```pycon\n>>> x = 1\n```", "```pycon\n>>> x = 1\n```"),
    ],
)
def test_the_program_is_the_last_block_of_python(text, expected):
    assert code.program(text) == expected


@isolated
def test_a_right_program_behind_a_command_passes():
    assert score(f"Run:\n```bash\npip install x\n```\n```Python\n{RIGHT}```\n```\n5\n```") == [1]
