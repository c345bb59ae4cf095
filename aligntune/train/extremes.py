"""The best and the worst answers of training by each reward, to see what it pays for.

One JSON object per line of `extremes.jsonl`: {"step": 11, "by": "length", "place": "best",
"score": 0.5, "prompt": "...", "completion": "...", "rewards": {"length": 0.5}}. `by` is a reward,
or "reward", what all of them make together.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerState

from aligntune.config.logging import SampleLogging
from aligntune.journal import append
from aligntune.rewards.types import last_user
from aligntune.train.samples import forget_after

FILE = "extremes.jsonl"
TOTAL = "reward"


class Extremes(TrainerCallback):  # type: ignore[misc]
    """Takes a round of sampling at each of the steps at which samples are wanted, or the next one
    after it, and the first."""

    def __init__(self, samples: SampleLogging, file: Path) -> None:
        self._samples = samples
        self._file = file
        self._taken: int | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """As samples do, what an interrupted attempt wrote is forgotten."""
        if state.is_world_process_zero:
            forget_after(self._file, state.global_step)

    def due(self, state: TrainerState, period: int) -> bool:
        """Whether the round that is sampled now is one of them; each has `period` steps."""
        done = state.global_step
        wanted = self._samples.intervals(state.max_steps)
        return done != self._taken and any(done % interval < period for interval in wanted)

    def take(
        self,
        step: int,
        prompts: Sequence[Sequence[dict[str, str]]],
        completions: Sequence[Sequence[dict[str, str]]],
        scores: Mapping[str, Tensor],
    ) -> None:
        """Write the extremes of a round; `scores` by name, one per answer of all processes."""
        columns = {name: column.tolist() for name, column in scores.items()}
        rows = [
            {
                "prompt": last_user(prompt),
                "completion": completion[0]["content"],
                "rewards": {n: _number(c[at]) for n, c in columns.items() if n != TOTAL},
            }
            for at, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]
        lines = (
            {"step": step, "by": name, "place": place, "score": column[at]} | rows[at]
            for name, column in columns.items()
            for place, at in _ends(column, self._samples.num_samples)
        )
        append(self._file, lines)

    def taken(self, state: TrainerState) -> None:
        """A round is one of them only once, however many times its answers are replaced."""
        self._taken = state.global_step


def _ends(scores: Sequence[float], count: int) -> Iterator[tuple[str, int]]:
    """The places of the best and of the worst that could be judged, none of them twice."""
    judged = [at for at, score in enumerate(scores) if not math.isnan(score)]
    order = sorted(judged, key=lambda at: -scores[at])
    yield from (("best", at) for at in order[:count])
    yield from (("worst", at) for at in reversed(order[max(count, len(order) - count) :]))


def _number(score: float) -> float | None:
    return None if math.isnan(score) else score
