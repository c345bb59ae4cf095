"""Runs that go wrong without an error: the signs, how long they last, and what to try."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerState

from aligntune.config.algo import GROUP, Trained
from aligntune.config.train import Guard, Train
from aligntune.errors import Diverged
from aligntune.train.callbacks import Logs

LOG = logging.getLogger(__name__)

NO_GRADIENT = 1e-6
"""A norm of the gradient that rounding leaves: pairs of equal answers have one of 4e-8."""


@dataclass(frozen=True)
class Sign:
    """One way to go wrong."""

    seen: Callable[[Logs], bool]
    """Whether a step's metrics have it."""
    words: Callable[[Logs], str]
    remedy: str


def signs(algo: Trained, guard: Guard) -> dict[str, Sign]:
    """By name; a metric that an algorithm does not have is no sign."""
    compares = algo in GROUP - {"bolt"}
    return {
        "kl": Sign(
            lambda logs: _value(logs, "kl", 0.0) > guard.max_kl,
            lambda logs: (
                f"the policy is {logs['kl']:.3g} nats per token away from the reference "
                f"(guard.max_kl {guard.max_kl:g})"
            ),
            "lower train.learning_rate, or raise train.kl_coef (ppo) or train.beta",
        ),
        "entropy": Sign(
            lambda logs: _value(logs, "entropy", guard.min_entropy) < guard.min_entropy,
            lambda logs: (
                f"the policy's entropy is {logs['entropy']:.3g} nats per token "
                f"(guard.min_entropy {guard.min_entropy:g}), so its answers hardly differ"
            ),
            "raise train.temperature or train.ent_coef, or lower train.learning_rate",
        ),
        "length": Sign(
            lambda logs: _value(logs, _LENGTH, guard.min_length) < guard.min_length,
            lambda logs: (
                f"answers have {logs[_LENGTH]:.3g} tokens on average "
                f"(guard.min_length {guard.min_length:g})"
            ),
            "add a `length` reward, or lower train.learning_rate",
        ),
        "signal": Sign(
            _alike_in_groups if compares else _alike,
            lambda logs: (
                f"all answers {'to a prompt ' if compares else ''}are rewarded alike, so "
                "there is nothing to learn"
            ),
            "look at the rewards (`sample_logging`), use easier or harder prompts, more "
            "train.num_generations or a higher train.temperature",
        ),
    }


_LENGTH = "completions/mean_length"


class Watch(TrainerCallback):  # type: ignore[misc]
    """Warns or stops, as `guard.action` says, once a sign lasted for `guard.patience` steps.

    Where nothing could be learned from the first step on there is nothing to lose, so that always
    stops; where cut-off answers are left out and none ever ends, `off` does not help either.
    """

    def __init__(self, algo: Trained, train: Train) -> None:
        self._guard = train.guard or Guard()
        self._masks = bool(train.mask_truncated_completions)
        self._signs = signs(algo, self._guard)
        self._lasting = dict.fromkeys(self._signs, 0)
        self._learned = False
        self._seen = 0
        self._last: Logs = {}
        self._good: int | None = None

    def healthy(self) -> bool:
        """Whether the latest step had no sign of going wrong."""
        return not any(self._lasting.values())

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Logs, **_: Any) -> None:
        if "reward" not in logs:
            return
        signal = not self._signs["signal"].seen(logs) and not self._masked(logs)
        # What a run that goes on has learned before is not known here.
        self._learned |= signal or (self._seen == 0 and state.global_step > 1)
        self._seen += 1
        self._last = logs
        for name, sign in self._signs.items() if self._guard.action != "off" else ():
            self._lasting[name] = self._lasting[name] + 1 if sign.seen(logs) else 0
            if self._lasting[name] == self._guard.patience:
                self._tell(state.global_step, sign, logs)
        if not self._learned and state.global_step == self._guard.patience:
            self._refuse(logs, state.global_step)

    def on_save(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self.healthy():
            self._good = state.global_step

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Of a run that ends before patience does, which may be a trial of a few steps, it is
        said; where no answer could be learned from, however many steps there are, it stops."""
        if self._seen and not self._learned and state.global_step >= state.max_steps:
            if self._masked(self._last):
                self._refuse(self._last, state.global_step)
            sign = self._signs["signal"]
            words = sign.words(self._last)
            LOG.warning("in all %d steps %s; %s", state.global_step, words, sign.remedy)

    def _masked(self, logs: Logs) -> bool:
        return self._masks and logs.get("completions/clipped_ratio") == 1

    def _tell(self, step: int, sign: Sign, logs: Logs) -> None:
        message = f"step {step}, for {self._guard.patience} steps: {sign.words(logs)}"
        if self._guard.action == "stop":
            raise Diverged(f"{message}; {sign.remedy}. {self._kept()}")
        LOG.warning("%s; %s", message, sign.remedy)

    def _kept(self) -> str:
        if self._good is None:
            return "No checkpoint is from before that; lower logging.save_steps to have one"
        return f"The checkpoint of step {self._good} is from before that, and is kept"

    def _refuse(self, logs: Logs, step: int) -> None:
        if self._masked(logs):
            raise Diverged(
                f"no answer has ended in {step} steps and train.mask_truncated_completions leaves "
                "out those that are cut off, so nothing can be learned; raise "
                "train.max_completion_length"
            )
        if self._guard.action != "off":
            sign = self._signs["signal"]
            raise Diverged(f"in all {step} steps {sign.words(logs)}; {sign.remedy}")


class Still(TrainerCallback):  # type: ignore[misc]
    """Stops a run on given answers that has nothing to learn: from its first step on there is no
    gradient but what rounding leaves, which Adam would make steps of full size of."""

    def __init__(self, patience: int = Guard().patience) -> None:
        self._patience = patience
        self._still = 0
        self._moved = False

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Logs, **_: Any) -> None:
        if self._moved or logs.get("grad_norm") is None:
            return
        # What a run that goes on has learned before is not known here.
        resumed = self._still == 0 and state.global_step > 1
        self._moved = resumed or float(logs["grad_norm"]) > NO_GRADIENT
        self._still += 1
        if not self._moved and self._still == min(self._patience, state.max_steps):
            raise Diverged(
                f"in all {self._still} steps there was no gradient, so there is nothing to learn; "
                "look at the rows (`aligntune data`): chosen and rejected answers that are alike, "
                "or that train.max_length cuts off"
            )


def _value(logs: Logs, name: str, otherwise: float) -> float:
    found = logs.get(name)
    return otherwise if found is None else float(found)


def _alike_in_groups(logs: Logs) -> bool:
    return logs.get("frac_reward_zero_std") == 1


def _alike(logs: Logs) -> bool:
    return logs.get("reward_std") == 0
