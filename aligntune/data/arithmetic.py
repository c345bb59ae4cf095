"""`arithmetic:`: sums to work out, with right and plausibly wrong solutions. Made, not downloaded.

    question  What is 12 + 7 - 5?
    worked    12 + 7 = 19, 19 - 5 = 14. The answer is 14.
    answer    14
    wrong     12 + 7 = 20, 20 - 5 = 15. The answer is 15.

No intermediate result is negative, and products come first.
"""

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice, product
from operator import add, mul, sub
from typing import Annotated, Any, Literal

from pydantic import Field

from aligntune.config.base import Strict
from aligntune.data.procedural import belongs, checked
from aligntune.data.rows import Row
from aligntune.errors import ConfigError

VERSION = 1
"""Raised when the same params make other rows."""

Operator = Literal["+", "-", "*"]
OPERATORS = {"+": add, "-": sub, "*": mul}
SLIPS = (1, -1, 10, -10)

Problem = tuple[tuple[int, ...], tuple[str, ...]]
"""Operands, and the operators between them."""
Slip = tuple[int, int]
"""A step, and what its result is off by."""


class Params(Strict):
    count: int = Field(1000, ge=1, le=10**7)
    """Rows in the split."""
    operands: tuple[Annotated[int, Field(ge=2, le=5)], ...] = Field((2, 3), min_length=1)
    """Allowed numbers of operands, asked equally often while there are different questions."""
    max_value: int = Field(49, ge=1, le=10**6)
    """Largest operand; the smallest is 0."""
    operators: tuple[Operator, ...] = Field(("+", "-"), min_length=1)
    """What stands between operands."""
    system: str | None = None
    """A system turn for every row."""
    seed: int = 0
    """Which questions are asked, and in which order."""
    worked: bool = True
    """Whether solutions show their steps; without, they are just the number."""


def identity(task: str, params: Mapping[str, Any]) -> str:
    """`arithmetic:<version>`, if there is nothing after the colon and the params are right."""
    if task:
        raise ConfigError(f"nothing may follow `arithmetic:`, but {task!r} does; use `params`")
    checked(Params, params)
    return f"arithmetic:{VERSION}"


def rows(task: str, params: Mapping[str, Any], split: str) -> list[Row]:
    """`count` rows with different questions, the same on every machine."""
    wanted = checked(Params, params)
    found = [_row(problem, wanted) for problem in islice(_problems(wanted, split), wanted.count)]
    if len(found) < wanted.count:
        raise ConfigError(
            f"params.count: {wanted.count} rows asked for, but only {len(found)} different "
            f"questions exist in split {split!r}; raise `max_value` or `operands`, or lower `count`"
        )
    return found


def _row(problem: Problem, params: Params) -> Row:
    steps, answer = _right(problem)
    wrong_steps, wrong = _wrong(problem, answer, params.seed)
    row = {
        "question": question(problem),
        "worked": _text(steps, answer) if params.worked else str(answer),
        "answer": str(answer),
        "wrong": _text(wrong_steps, wrong) if params.worked else str(wrong),
    }
    return row if params.system is None else {"system": params.system, **row}


def question(problem: Problem) -> str:
    numbers, operators = problem
    rest = (f" {sign} {number}" for sign, number in zip(operators, numbers[1:], strict=True))
    return f"What is {numbers[0]}{''.join(rest)}?"


def _text(steps: list[str], result: int) -> str:
    return f"{', '.join(steps)}. The answer is {result}."


def _solve(problem: Problem, slip: Slip | None = None) -> tuple[list[str], int] | None:
    """(steps, result), with one step's result off if asked; None where a result is negative."""
    numbers, operators = list(problem[0]), list(problem[1])
    steps: list[str] = []
    while operators:
        at = operators.index("*") if "*" in operators else 0
        sign = operators.pop(at)
        left, right = numbers[at : at + 2]
        result = OPERATORS[sign](left, right)
        if slip and slip[0] == len(steps):
            result += slip[1]
        if result < 0:
            return None
        numbers[at : at + 2] = [result]
        steps.append(f"{left} {sign} {right} = {result}")
    return steps, numbers[0]


def _right(problem: Problem) -> tuple[list[str], int]:
    solved = _solve(problem)
    assert solved is not None, f"{problem} was chosen for having no negative result"
    return solved


def _wrong(problem: Problem, answer: int, seed: int) -> tuple[list[str], int]:
    """A solution with one slip, carried through to another result."""
    slips = sorted(
        product(range(len(problem[1])), SLIPS),
        key=lambda slip: _digest(f"{seed}/{question(problem)}/{slip}"),
    )
    tries = (_solve(problem, slip) for slip in slips)
    return next(solved for solved in tries if solved and solved[1] != answer)


def _problems(params: Params, split: str) -> Iterator[Problem]:
    """Every problem of the split, once; the numbers of operands take turns while they last."""
    streams = [_of_length(size, params, split) for size in dict.fromkeys(params.operands)]
    while streams:
        turn = [(stream, next(stream, None)) for stream in streams]
        yield from (problem for _, problem in turn if problem is not None)
        streams = [stream for stream, problem in turn if problem is not None]


def _of_length(size: int, params: Params, split: str) -> Iterator[Problem]:
    signs = tuple(dict.fromkeys(params.operators))
    values = params.max_value + 1
    every = values**size * len(signs) ** (size - 1)
    for index in _permuted(every, f"{params.seed}/{size}"):
        numbers, operators = [], []
        for place in range(size):
            index, number = divmod(index, values)
            numbers.append(number)
            if place:
                index, sign = divmod(index, len(signs))
                operators.append(signs[sign])
        problem = (tuple(numbers), tuple(operators))
        if _solve(problem) and belongs(question(problem), split):
            yield problem


def _permuted(size: int, key: str) -> Iterator[int]:
    """0 ... size - 1 in an order that `key` decides, in constant memory.

    A Feistel network over the next even power of two, walked until it lands below `size`.
    """
    half = (size.bit_length() + 1) // 2
    mask = (1 << half) - 1
    for start in range(size):
        index = start
        while True:
            left, right = index >> half, index & mask
            for turn in range(4):
                left, right = right, left ^ (_digest(f"{key}/{turn}/{right}") & mask)
            index = left << half | right
            if index < size:
                break
        yield index


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
