"""The inside of a process of `workers`: reads a list as JSON and writes a word, by line.

The kernel ends it when a request takes more than its seconds of CPU time, or ten times as long by
the clock: nothing that runs inside can prevent that.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

MEMORY = 4 << 30
"""Bytes of address space."""
FAILED = "failed"
TUPLES = frozenset(("arc_agi", "rearc"))
"""Tasks that compare with tuples, which JSON does not have."""


@lru_cache(maxsize=1024)
def _read(text: str) -> Any:
    from math_verify import parse

    return parse(text, parsing_timeout=None)


def formulas(reference: str, answer: str) -> str:
    """`equal` or `different`; `unread` where the reference is no formula."""
    from math_verify import verify

    # In a box it is LaTeX as a whole.
    gold = _read(reference if "$" in reference else f"\\boxed{{{reference}}}")
    if all(isinstance(one, str) for one in gold):
        return "unread"
    return "equal" if verify(gold, _read(answer), timeout_seconds=None) else "different"


@cache
def _judge(task: str) -> Any:
    from reasoning_gym.factory import create_dataset

    return create_dataset(task, size=1, seed=0).score_answer


def puzzle(task: str, entry: str, answer: str) -> str:
    """The score that a task of reasoning-gym gives an answer to the JSON `entry`."""
    made = json.loads(entry)
    if task in TUPLES:
        made["metadata"] = _tuples(made["metadata"])
    return str(float(_judge(task)(answer, made)))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


KINDS: dict[str, Callable[..., str]] = {"formulas": formulas, "puzzle": puzzle}
FIRST = {
    "formulas": ["\\frac{1}{2}", "\\boxed{0.5}"],
    "puzzle": ["gcd", '{"answer": "1", "metadata": {}}', "1"],
}
"""A request that loads what all others need, and takes longer than they."""


def main(kind: str) -> None:
    """Answer requests of that kind until there are no more."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the step that is under way needs its scores
        signal.signal(number, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a scorer prints is no reply
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    KINDS[kind](*FIRST[kind])
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        seconds, *request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, 10 * seconds)
        try:
            word = KINDS[kind](*request)
        except Exception:  # noqa: BLE001 - a policy's answer may make it raise anything
            word = FAILED
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(f"{word}\n")
        replies.flush()


if __name__ == "__main__":
    main(sys.argv[1])
