"""Rewards for programs that an answer contains."""

import ast
import json
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent
from typing import Any

from aligntune.errors import ConfigError, DataError
from aligntune.rewards import sandbox
from aligntune.rewards.types import Sample

_FENCED = re.compile(
    r"(?:^[ \t]*```([^\n`]*)|```((?i:python|py)[\d.]*)[^\n`]*)\n(.*?)(?:```|\Z)",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = re.compile(r"\s*\{?(?:python|py)[\d.]*\b", re.IGNORECASE)
_LONGEST = 100_000
"""Characters of a program that are looked at."""


def code_syntax(samples: Sequence[Sample]) -> list[float | None]:
    """1 where the program of the answer, as `code_execution` finds it, is Python that parses and
    is not empty, else 0. Nothing is run."""
    return [_parses(program(sample.completion)) for sample in samples]


def code_execution(
    samples: Sequence[Sample],
    *,
    column: str = "tests",
    timeout: int = 5,
    memory: int = 256,
    processes: int = 8,
    workers: int = 2,
    isolation: str = "bwrap",
) -> list[float | None]:
    """1 where the answer's Python program passes every test of its row, else 0.

    The program is the last fenced block that is labelled as Python, else the last without a label,
    else all of the answer. The row's `column` lists its tests, each one of `{input, output}` (what
    it reads and must print, but for trailing white space), `{function, args, expected}` (JSON
    values) or `"assert f(1, 2) == 3"` with literals. None for a row without tests.

    Each test has a process of its own under bubblewrap: no network, none of the host's files,
    limits on `memory` (MiB per process), `processes`, files and output. All tests of a row get
    `timeout` seconds of wall clock together. The expected value never enters the process, so a
    program cannot pass by faking a verdict. Each starts a Python: measured 28 per second with two
    workers on two busy cores, so this is far below 1,000 per CPU-second. `isolation: none` keeps
    resource limits alone; a program can then read this machine's files and use its network.

    Raises:
        ConfigError: a setting is wrong, or isolation cannot be had.
        DataError: a row's tests are in no form of the above.
    """
    if isolation not in ("bwrap", "none"):
        raise ConfigError(
            f"reward 'code_execution': isolation is {isolation!r}; write 'bwrap' or 'none'"
        )
    if min(timeout, processes, workers) < 1 or memory < 64:
        raise ConfigError(
            "reward 'code_execution': timeout, processes and workers must be at least 1, and "
            "memory at least 64 MiB"
        )
    limits = sandbox.Limits(memory, processes, isolation == "bwrap")
    if limits.isolated:
        sandbox.require()
    tests = [_tests(sample.columns.get(column), column) for sample in samples]
    with ThreadPoolExecutor(workers) as pool:
        return list(
            pool.map(
                lambda sample, cases: _passes(program(sample.completion), cases, timeout, limits),
                samples,
                tests,
            )
        )


def program(text: str) -> str:
    """The last fenced block of `text` that is labelled as Python, else the last without a label,
    else all of it. A block may lack its end."""
    found: dict[bool, str] = {}
    for label, python, code in _FENCED.findall(text):
        if python or not label.strip() or _PYTHON.match(label):
            found[bool(python or label.strip())] = code
    code = found.get(True, found.get(False, text))
    return dedent(code) if code[:1] in (" ", "\t") else code


def _parses(code: str) -> float:
    if len(code) > _LONGEST:
        return 0.0
    try:
        return float(bool(ast.parse(code).body))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0.0


Test = tuple[str, str, Any]
"""(standard input, call as JSON or "", what is expected)."""


def _tests(given: Any, column: str) -> list[Test]:
    if given is None:
        return []
    if not isinstance(given, list):
        given = [given]
    return [_test(one, column) for one in given]


def _test(one: Any, column: str) -> Test:
    if isinstance(one, str):
        one = _asserted(one)
    if isinstance(one, Mapping):
        if isinstance(one.get("function"), str) and isinstance(one.get("args"), list):
            if "expected" in one:
                return "", json.dumps([one["function"], one["args"]]), one["expected"]
        elif isinstance(one.get("output"), str):
            return str(one.get("input") or ""), "", one["output"]
    raise DataError(
        f"column {column!r} has the test {str(one)[:80]!r}; write {{input, output}}, {{function, "
        "args, expected}} or 'assert f(1) == 2' with literals"
    )


def _asserted(text: str) -> Mapping[str, Any] | str:
    try:
        (statement,) = ast.parse(text.strip()).body
        assert isinstance(statement, ast.Assert)
        compared = statement.test
        assert isinstance(compared, ast.Compare)
        call = compared.left
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        assert isinstance(compared.ops[0], ast.Eq)
        assert not call.keywords
        assert len(compared.ops) == 1
        args = [ast.literal_eval(argument) for argument in call.args]
        expected = json.loads(json.dumps(ast.literal_eval(compared.comparators[0])))
        return {"function": call.func.id, "args": args, "expected": expected}
    except (SyntaxError, ValueError, TypeError, AssertionError, RecursionError):
        return text


def _passes(
    code: str, tests: Sequence[Test], seconds: float, limits: sandbox.Limits
) -> float | None:
    if not tests:
        return None
    if not _parses(code):
        return 0.0
    deadline = time.monotonic() + seconds
    for stdin, call, expected in tests:
        left = deadline - time.monotonic()
        printed = sandbox.run(code, stdin, call, left, limits) if left > 0 else None
        if printed is None or not _right(printed, bool(call), expected):
            return 0.0
    return 1.0


def _right(printed: str, called: bool, expected: Any) -> bool:
    if not called:
        return _lines(printed) == _lines(str(expected))
    try:
        return bool(json.loads(printed.rstrip("\n").rpartition("\n")[2]) == expected)
    except (ValueError, RecursionError):
        return False


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
