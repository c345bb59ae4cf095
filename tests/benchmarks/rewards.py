"""Texts per CPU-second of each reward that is code, in batches of 256. Run it: it prints a
table. For code_execution it is per second of wall clock, with its default of two workers."""

import time

from aligntune.config.rewards import Reward
from aligntune.rewards import MODEL, REWARDS, scorer
from aligntune.rewards.types import Sample

BATCH = 256
CODE = "def add(a, b):\n    return a + b\n"
TEXT = "<think>Two and two make four.</think> The answer is 4, and here is why. " * 4
PARAMS = {"regex": {"pattern": r"\d+"}}


def rate(name: str) -> float:
    judge = scorer(Reward(reward_type=name, params=PARAMS.get(name, {})))
    text = CODE if name.startswith("code") else TEXT
    columns = {"tests": ["assert add(1, 2) == 3"]}
    samples = [Sample("What is 2 + 2?", text, "4", columns=columns) for _ in range(BATCH)]
    judge(samples[:1])
    # Nobody waits for the processes inside the sandbox, so only the wall clock sees them.
    clock = time.perf_counter if name == "code_execution" else time.process_time
    before = clock()
    judge(samples)
    return BATCH / max(clock() - before, 1e-6)


if __name__ == "__main__":
    for name in sorted(set(REWARDS) - {MODEL}):
        print(f"{name:<16} {rate(name):>12,.0f}")
