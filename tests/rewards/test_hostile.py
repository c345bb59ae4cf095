# ruff: noqa: E501 - programs stand as they are run
"""Programs that attack the machine get nothing, cost no more than their time, and leave nothing."""

import os
import socket
import threading
import time
from itertools import islice
from pathlib import Path

import pytest

from aligntune.config.rewards import Reward
from aligntune.rewards import code, sandbox, scorer
from aligntune.rewards.types import Sample

pytestmark = pytest.mark.skipif(
    not sandbox.available(), reason="bubblewrap is not installed or may not make namespaces here"
)
MARK = 10**9 + os.getpid()
"""On the command line of every process that one of these programs starts."""
TEST = {"function": "add", "args": [2, MARK], "expected": 5}
"""A program that got through answers 5."""
SECONDS = 1
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
    "symbolic links": "import os\nfor i, p in enumerate(('{target}', '/etc', '/proc/1/root', '/root')):\n"
    "    os.symlink(p, f'/tmp/{{i}}')\n    try: open(f'/tmp/{{i}}/kept', 'w').write('{n}')\n"
    "    except OSError: continue\n    def add(a, b): return 5",
    "link out of the directory": "import os\ntry:\n    os.symlink('../../../../{target}', '/tmp/out')\n"
    "    os.remove('/tmp/out/kept')\nexcept OSError: pass" + WRONG + "#{n}",
    "kernel settings": "import glob\nfor p in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger',\n"
    "        '/proc/self/oom_score_adj', '/proc/1/oom_score_adj', '/sys/power/state'):\n"
    "    try: open(p, 'w').write('-{n}')\n    except OSError: continue\n"
    "    if p[6:9] != 'sel':\n        def add(a, b): return 5",
    "others' memory": "import os\nfor p in (1, os.getppid(), 2, {n}):\n"
    "    try: f = open(f'/proc/{{p}}/mem', 'r+b')\n    except OSError: continue\n"
    "    if p != os.getpid():\n        def add(a, b): return 5",
    "ptrace": "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "if any(libc.ptrace(16, p, 0, 0) == 0 for p in (1, os.getppid()) if p):\n"
    "    def add(a, b): return 5\nx = {n}",
    "shell": "import os\nos.system('(sleep 60 {mark} & exec sleep 6{n} {mark}) >/dev/null 2>&1 &')\n"
    "os.execv('/bin/sh', ['sh', '-c', 'while :; do :; done # {mark}'])",
    "shell that deletes": "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'rm -rf {target} /tmp/* ~'])"
    + WRONG
    + "#{n}",
    "namespaces": "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
    "if libc.unshare(0x10000000) == 0 or libc.unshare(0x20000) == 0:\n"
    "    def add(a, b): return 5\nx = {n}",
    "namespaces of a child": "import ctypes\nlibc, x = ctypes.CDLL(None), {n}\n"
    "number = 56 if __import__('os').uname().machine == 'x86_64' else 220\n"
    "made = libc.syscall(number, 0x10000000 | 17, 0, 0, 0, 0)\n"
    "if made == 0: libc._exit(0)\nif made > 0:\n    def add(a, b): return 5",
    "calls under other numbers": "import ctypes\nlibc, x = ctypes.CDLL(None), {n}\n"
    "if libc.syscall(0x40000000 + 272, 0x10000000) == 0:\n    def add(a, b): return 5",
    "become root": "import os\nfor f in (os.setuid, os.setgid, os.chroot):\n"
    "    try: f('/proc/1/root' if f is os.chroot else 0)\n    except OSError: continue\n"
    "    if os.path.exists('{target}/kept'):\n        def add(a, b): return 5\nx = {n}",
    "files": "import os\nf = []\nwhile True: f.append(os.open('/dev/zero', {n} - {n}))",
    "pipes of processes": "import subprocess\nwhile True:\n"
    "    subprocess.Popen(['/bin/sleep', '60', '{mark}'], start_new_session=bool({n} % 2))",
    "long line": "print('9' * (1 << 20) * {n}, end='')" + WRONG,
    "regular expression": "import re\nre.match('(a|a)+$', 'a' * 6{n} + '!')",
    "stopped": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nx = {n}",
    "handler that goes on": "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\n"
    "signal.signal(signal.SIGTERM, lambda *_: None)\nx = {n}\nwhile True: x += 1",
}
HOSTILE = [(family, n) for n in range(1, 7) for family in FAMILIES]
QUICK = [
    "fork for ever", "memory", "delete", "network", "kill all", "daemon", "flood", "disk", "frames",
    "raised limits", "symbolic links", "kernel settings", "others' memory", "ptrace", "namespaces",
    "become root", "shell that deletes", "files", "always equal", "huge number", "write outside",
]  # fmt: skip


def score(*programs, workers=2, tests=(TEST,)):
    """The score of each, and the seconds that the longest took."""
    params = {"timeout": SECONDS, "workers": workers}
    judge = scorer(Reward(reward_type="code_execution", params=params))
    return judge([Sample("", text, columns={"tests": list(tests)}) for text in programs])


@pytest.fixture
def took(monkeypatch):
    """Seconds of each program."""
    spent, run = [], sandbox.run

    def timed(*args):
        before = time.monotonic()
        try:
            return run(*args)
        finally:
            spent.append(time.monotonic() - before)

    monkeypatch.setattr(code.sandbox, "run", timed)
    return spent


@pytest.fixture
def world(tmp_path):
    """A directory that programs are after, and a server that must hear nothing."""
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
    assert (tmp_path / "kept").read_text() == "precious"


def _attack(world, took, programs):
    target, port = world
    texts = [
        FAMILIES[family].format(n=n, target=target, port=port, mark=MARK) for family, n in programs
    ]
    for text in texts:
        compile(text, "hostile", "exec")  # or it would not be run at all
    found = score(*texts)
    assert [one for one, value in zip(programs, found, strict=True) if value != 0] == []
    assert len(took) == len(programs)
    assert max(took) < SECONDS + 10
    assert sum(took) < len(programs) * (SECONDS + 2)
    # The kernel takes the last processes away a moment after the run is over.
    end = time.monotonic() + 5
    while _left() and time.monotonic() < end:
        time.sleep(0.05)
    assert _left() == []


def _left():
    """Command lines of processes that these programs started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if str(MARK).encode() in line:
            found.append(line)
    return found


def test_hostile_programs_get_nothing(world, took):
    _attack(world, took, [(family, 3) for family in QUICK])


@pytest.mark.slow
def test_two_hundred_hostile_programs_get_nothing(world, took):
    assert len(HOSTILE) >= 200
    _attack(world, took, HOSTILE)


def test_a_process_that_is_left_would_be_seen():
    import subprocess

    with subprocess.Popen(["sleep", "30", str(MARK)]) as process:
        try:
            # Linux shows the words of a command a moment after it has started.
            end = time.monotonic() + 5
            while not _left() and time.monotonic() < end:
                time.sleep(0.01)
            assert len(_left()) == 1
        finally:
            process.kill()


ESCAPES = {
    "exit": "import sys\nsys.exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "exit in the call": "import os\ndef add(a, b): print('passed'); os._exit(0)",
    "SystemExit in the call": "def add(a, b): raise SystemExit(0)",
    "words": "print('passed', 'OK', '1.0', 'True', sep='\\n')",
    "verdict as JSON": "def add(a, b): return {'passed': True, 'score': 1.0, 'expected': 5, 'ok': 5}",
    "equal to all": "class A(int):\n    def __eq__(self, o): return True\n"
    "    __hash__ = int.__hash__\ndef add(a, b): return A(0)",
    "text equal to all": "class A(str):\n    def __eq__(self, o): return True\n"
    "    __hash__ = str.__hash__\ndef add(a, b): return A('x')",
    "list equal to all": "class A(list):\n    def __eq__(self, o): return True\n"
    "def add(a, b): return A()",
    "not a number": "def add(a, b): return float('nan')",
    "infinity": "def add(a, b): return float('inf')",
    "nothing": "def add(a, b): return None",
    "true": "def add(a, b): return True",
    "all numbers": "def add(a, b): return list(range(100))",
    "lines of all numbers": "def add(a, b):\n    for i in range(100): print(i)\n    return ''",
    "two answers in a line": "import os\ndef add(a, b): os.write(1, b'5 4'); os._exit(0)",
    "frames": "import sys\ndef add(a, b):\n    f, found = sys._getframe(), []\n    while f:\n"
    "        found += [v for k, v in {**f.f_globals, **f.f_locals}.items() if 'expect' in str(k)]\n"
    "        f = f.f_back\n    return found[0] if found else 0",
    "objects": "import gc\ndef add(a, b):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, dict) and 'expected' in o: return o['expected']\n    return 0",
    "command line": "import re\ndef add(a, b):\n    text = open('/proc/self/cmdline').read()\n"
    "    found = re.findall(r'expected\\D+(\\d+)', text)\n    return int(found[0]) if found else 0",
    "other command lines": "import glob, re\ndef add(a, b):\n    for p in glob.glob('/proc/*/cmdline'):\n"
    "        found = re.findall(r'expected\\D+(\\d+)', open(p).read())\n"
    "        if found: return int(found[0])\n    return 0",
    "environment": "import os, glob\ndef add(a, b):\n    for p in glob.glob('/proc/*/environ'):\n"
    "        try:\n            if 'expected' in open(p).read(): return 5\n"
    "        except OSError: pass\n    return 5 if 'EXPECTED' in os.environ else 0",
    "open files": "import os, re\ndef add(a, b):\n    for fd in range(30):\n        try:\n"
    "            os.lseek(fd, 0, 0)\n            text = os.read(fd, 10000).decode()\n"
    "        except (OSError, UnicodeDecodeError): continue\n"
    "        found = re.findall(r'expected\\W+(\\d+)', text)\n"
    "        if found: return int(found[0])\n    return 0",
    "json patched": "import json\njson.dumps = lambda *_, **__: 'true'\njson.loads = lambda *_: True"
    "\ndef add(a, b): return 0",
    "json replaced": "import sys, types\nsys.modules['json'] = types.SimpleNamespace(dumps=repr)"
    "\ndef add(a, b): return 0",
    "output patched": "import sys\nclass Out:\n    def write(self, text): sys.__stdout__.write('True')\n"
    "    def flush(self): pass\nsys.stdout = Out()\ndef add(a, b): return 0",
    "output closed": "import os\ndef add(a, b): os.close(1); return 0",
    "late thread": "import threading, time\ndef add(a, b):\n"
    "    threading.Thread(target=lambda: (time.sleep(0.2), print('passed'))).start()\n    return 0",
    "late child": "import os, time\ndef add(a, b):\n    if os.fork() == 0:\n        time.sleep(0.2)\n"
    "        print('true', flush=True)\n        os._exit(0)\n    return 0",
    "at exit": "import atexit\natexit.register(lambda: print('\\n' + '{\"passed\": true}'))\n"
    "def add(a, b): return 0",
    "when deleted": "class A:\n    def __del__(self): print('\\ntrue')\nkept = A()\ndef add(a, b): return 0",
    "trace": "import sys\ndef spy(frame, *_):\n    frame.f_globals['passed'] = True\n    return spy\n"
    "sys.settrace(spy)\ndef add(a, b): return 0",
    "the program itself": "import os\ntry: open('/program.py', 'a').write('5')\nexcept OSError: pass\n"
    "def add(a, b): return 0",
    "another main": "import __main__\n__main__.found = '5'\n__main__.wanted = ['abs', [5]]\n"
    "def add(a, b): return 0",
    "signal of success": "import signal, sys, time\nsignal.signal(signal.SIGALRM, lambda *_: sys.exit(0))\n"
    "signal.setitimer(0, 0.1)\ntime.sleep(5)\ndef add(a, b): return 0",
}


def test_programs_that_fake_their_verdict_score_nothing():
    assert len(ESCAPES) >= 30
    for text in ESCAPES.values():
        compile(text, "escape", "exec")
    tests = ({"function": "add", "args": [2, MARK], "expected": MARK + 2},)
    found = score(*ESCAPES.values(), tests=tests)
    assert [name for name, value in zip(ESCAPES, found, strict=True) if value != 0] == []
    # They are judged: the same test is passed by who adds.
    assert score("def add(a, b): return a + b", tests=tests) == [1]


def test_a_printed_verdict_is_output_like_any_other():
    printed = [text + "\nprint(add(1, 1))" for text in islice(ESCAPES.values(), 16)]
    assert set(score(*printed, tests=({"input": "1", "output": "7"},))) == {0}
