"""Programs of a policy: the right ones score, and hostile ones neither score nor escape."""

import os
import threading
import time
from pathlib import Path

import pytest

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError, DataError
from aligntune.rewards import sandbox, scorer
from aligntune.rewards.types import Sample

isolated = pytest.mark.skipif(
    not sandbox.available(), reason="bubblewrap is not installed or may not make namespaces here"
)
ADD = {"function": "add", "args": [2, 3], "expected": 5}
RIGHT = "def add(a, b):\n    return a + b\n"


def score(*programs, tests=(ADD,), **params):
    judge = scorer(Reward(reward_type="code_execution", params=params))
    return judge([Sample("", code, columns={"tests": list(tests)}) for code in programs])


@isolated
@pytest.mark.parametrize(
    ("code", "tests", "expected"),
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
def test_a_program_scores_by_what_it_computes(code, tests, expected):
    assert score(code, tests=tests) == [expected]


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


WRONG = "\ndef add(a, b): return 0\n"
FAMILIES = {
    "fork bomb": "import os\nfor _ in range({n}00):\n    os.fork()\nwhile True: pass",
    "fork for ever": "import os, time\nwhile True:\n  try: os.fork()\n  except OSError: pass #{n}",
    "threads": "import threading, time\nfor _ in range({n}00):\n"
    "    threading.Thread(target=time.sleep, args=(60,)).start()",
    "memory": "x = bytearray({n} << 32)",
    "memory in steps": "x = []\nwhile True: x.append('a' * {n} * 1000000)",
    "loop": "n = {n}\nwhile True: n += 1",
    "sleep": "import time\ntime.sleep(60 * {n})",
    "huge number": "x = 9 ** 9 ** {n}9",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + {n})\nf(0)",
    "delete": "import shutil, os\nshutil.rmtree('{target}', ignore_errors=True)\n"
    "try: os.remove('{target}/kept')\nexcept OSError: pass" + WRONG + "#{n}",
    "write outside": "for p in ('{target}/new{n}', '/etc/new', '/usr/new', '/new'):\n"
    "    try: open(p, 'w').write('x')\n    except OSError: continue\n"
    "    def add(a, b): return 5",
    "read outside": "def add(a, b):\n    return 5 if open('{target}/kept').read() else {n}",
    "read passwords": "def add(a, b): return 5 if open('/etc/shadow').read() else {n}",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 5).send(b'{n}')"
    "\ndef add(a, b): return 5",
    "kill all": "import os, signal\nfor s in (signal.SIGKILL, signal.SIGSTOP, {n}):\n"
    "    for p in (-1, 1, os.getppid()):\n"
    "        try: os.kill(p, s)\n        except OSError: pass" + WRONG,
    "deaf": "import signal, time\nfor s in range(1, 30):\n"
    "    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
    "time.sleep(60 * {n})",
    "daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
    "    if os.fork() == 0: time.sleep(60 * {n})" + WRONG,
    "flood": "import sys\nwhile True: sys.stdout.write('a' * {n}000000)",
    "flood of errors": "import sys\nwhile True: sys.stderr.write('a' * {n}000000)",
    "disk": "i = 0\nwhile True:\n    open(f'/tmp/{{i}}', 'w').write('a' * {n}00000)\n    i += 1",
    "exit": "import os, sys\nprint('passed')\nos._exit(0) if {n} % 2 else sys.exit(0)",
    "always equal": "class A(int):\n    def __eq__(self, other): return True\n"
    "def add(a, b): return A({n}0)",
    "faked verdict": "import sys, os, json, atexit\nprint(json.dumps({{'passed': True}}), 1.0)\n"
    "sys.stdout = open(os.devnull, 'w')\ndef add(a, b): return {n}0",
    "frames": "import sys\ndef add(a, b):\n    f, found = sys._getframe(), []\n"
    "    while f: found += [v for k, v in f.f_locals.items() if k == 'expected']; f = f.f_back\n"
    "    return found[0] if found else {n}0",
    "raised limits": "import resource as r\nfor k in (r.RLIMIT_AS, r.RLIMIT_NPROC):\n"
    "    try:\n        r.setrlimit(k, (-1, -1))\n    except (ValueError, OSError): continue\n"
    "    def add(a, b): return 5\nx = {n}",
    "deep answer": "def add(a, b):\n    print('[' * {n}00000)\n    import os; os._exit(0)",
}
HOSTILE = [(family, n) for n in range(1, 9) for family in FAMILIES]
SECONDS = 1


@pytest.fixture
def world(tmp_path):
    """A directory that programs are after, and a server that must hear nothing."""
    import socket

    (tmp_path / "kept").write_text("precious")
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        over = threading.Event()

        def listen():
            while not over.is_set():
                try:
                    heard.append(server.accept())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        yield tmp_path, server.getsockname()[1]
        over.set()
        thread.join()
    assert heard == []
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def _attack(world, programs):
    target, port = world
    for family, n in programs:
        code = FAMILIES[family].format(n=n, target=target, port=port)
        compile(code, family, "exec")
        before = time.monotonic()
        assert score(code, timeout=SECONDS) == [0], (family, n)
        assert time.monotonic() - before < SECONDS + 3, (family, n)
    # The kernel takes the last processes away a moment after the run is over.
    end = time.monotonic() + 5
    while _left() and time.monotonic() < end:
        time.sleep(0.05)
    assert not _left()


def _left():
    """Processes of ours that still run under the ids of the sandbox."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"RLIMIT_" in line and str(os.getpid()).encode() != folder.name.encode():
            found.append(line)
    return found


@isolated
@pytest.mark.parametrize(
    "family", ["fork for ever", "memory", "network", "daemon", "flood", "delete", "frames"]
)
def test_a_hostile_program_gets_nothing(world, family):
    _attack(world, [(family, 3)])


@isolated
@pytest.mark.slow
def test_two_hundred_hostile_programs_get_nothing(world):
    assert len(HOSTILE) >= 200
    _attack(world, HOSTILE)
