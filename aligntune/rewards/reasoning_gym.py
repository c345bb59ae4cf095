"""A reward that reasoning-gym's tasks give themselves."""

import json
import re
from collections.abc import Sequence

from aligntune.errors import ConfigError, DataError
from aligntune.extras import require
from aligntune.rewards.match import final, plain, stated
from aligntune.rewards.serve import FAILED
from aligntune.rewards.types import Sample
from aligntune.rewards.workers import pool

_TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
_LED = re.compile(r"^[\W_]*(?:the\s+)?(?:final\s+)?answer(?:\s+is\s*:?|\s*:)\s*", re.IGNORECASE)
_LONGEST = 20_000
"""Characters of an answer that are looked at, from its end."""


def reasoning_gym(
    samples: Sequence[Sample], *, partial: bool = False, seconds: float = 2.0, workers: int = 2
) -> list[float | None]:
    """1 where the task's own scorer takes the answer for right, else 0; with `partial`, its score,
    from 0 to 1.

    The row's columns `task` and `metadata`, which the source `reasoning_gym:<task>` gives, say how
    it is judged; several answers can be right, and some tasks are lenient. The answer is what
    stands in the last `<answer>...</answer>`, after `####` or in `\\boxed{...}`; else the whole
    text as it is, and else its last line. Most tasks give a part of 1 for a right answer among
    other words, so `partial` pays for guessing. None for a row without those columns.

    Some scorers evaluate an answer as Python, through sympy, so they run in `workers` processes of
    their own, which may write no files but are not isolated; one that takes more than `seconds` of
    CPU time is killed, and its answer scores 0.

    Raises:
        ConfigError: reasoning-gym is not installed.
        DataError: a row's metadata are not the task's, or there is no such task.
    """
    if seconds <= 0 or workers < 1:
        raise ConfigError("reward 'reasoning_gym': seconds must be above 0, workers at least 1")
    require("reward 'reasoning_gym'", "reasoning-gym", "reasoning-gym")
    asked = [_requests(sample) for sample in samples]
    together = [request for requests in asked for request in requests]
    words = iter(pool("puzzle", "reasoning_gym").ask(together, seconds, workers))
    return [
        _score([next(words) for _ in requests], requests, partial) if requests else None
        for requests in asked
    ]


Request = tuple[str, str, str]
"""(task, what the task made as JSON, answer)."""


def _requests(sample: Sample) -> list[Request]:
    """The reference first, which must be right, then what the answer may be."""
    task, held = sample.columns.get("task"), sample.columns.get("metadata")
    if task is None or held is None or sample.answer is None:
        return []
    try:
        held = json.loads(held) if isinstance(held, str) else held
    except ValueError:
        raise DataError(f"column 'metadata' is {held[:60]!r}, which is not JSON") from None
    entry = {"question": sample.prompt, "answer": sample.answer, "metadata": held}
    made = json.dumps(entry, sort_keys=True)
    return [(str(task), made, given) for given in (sample.answer, *_given(sample.completion))]


def _score(words: Sequence[str | None], requests: Sequence[Request], partial: bool) -> float:
    if words[0] == FAILED or (words[0] is not None and float(words[0]) < 1):
        raise DataError(
            f"the task {requests[0][0]!r} cannot judge its own answer {requests[0][2][:60]!r} with "
            "the row's `metadata`; take rows of the source `reasoning_gym:<task>`"
        )
    best = max(float(word) if word not in (None, FAILED) else 0.0 for word in words[1:])
    return best if partial else float(best >= 1)


def _given(text: str) -> list[str]:
    text = text[-_LONGEST:]
    if tagged := _TAGGED.findall(text):
        return [tagged[-1].strip()]
    if (marked := stated(text)) is not None:
        return [plain(marked)]
    return list(dict.fromkeys((text.strip(), _LED.sub("", final(text)).strip())))
