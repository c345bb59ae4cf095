"""What no single setting of a gate shows."""

from collections.abc import Iterator
from typing import get_args

from aligntune.config.evaluation import Gate, Metric
from aligntune.config.naming import KeyPath
from aligntune.config.rewards import Reward, metric_names
from aligntune.config.run import RunConfig
from aligntune.errors import unknown

SHARES = frozenset(
    ("exact_match", "preference_accuracy", "finished_rate", "distinct_1", "distinct_2",
     "refusal_rate")
)  # fmt: skip
"""Metrics from 0 to 1, which tables show in percent."""


def gate_problems(config: RunConfig) -> Iterator[tuple[KeyPath, str]]:
    """Gates that cannot hold, or are about what the run does not have: (place, message)."""
    known = {*get_args(Metric), *_of_rewards(config)}
    chosen = config.evaluation.metrics
    stages = {"champion", "base"} | ({"sft"} if config.sft else set())
    for index, gate in enumerate(config.registry.gates):
        at: KeyPath = ("registry", "gates", index)
        limited = (gate.min_value, gate.max_value) != (None, None)
        if gate.metric == "perplexity":
            yield (*at, "metric"), "gate `nll`: perplexity is e to its power"
        elif gate.metric not in known:
            yield (*at, "metric"), unknown("metric", gate.metric, known)
        elif chosen and gate.metric in get_args(Metric) and gate.metric not in chosen:
            message = f"{gate.metric} is not among `evaluation.metrics`; add it there"
            yield (*at, "metric"), message
        if gate.against not in stages:
            yield (*at, "against"), unknown("model", gate.against, stages)
        low, high = gate.min_value, gate.max_value
        if low is not None and high is not None and low > high:
            yield (*at, "min_value"), "is above `max_value`, so no candidate can pass"
        if gate.metric == "kl_to_base" and (gate.min_delta is not None or not limited):
            message = "a distance to base is compared with nothing; set `max_value`"
            yield (*at, "metric"), message
        if gate.metric in SHARES:
            yield from (((*at, name), message) for name, message in _out_of_range(gate))


def _out_of_range(gate: Gate) -> Iterator[tuple[str, str]]:
    """Limits of a share that no candidate can keep, or that every one keeps: -5 for 5 points lets
    any loss pass."""
    unit = f"{gate.metric} is a share from 0 to 1: 5 points are 0.05"
    if gate.min_delta is not None and not -1 < gate.min_delta < 1:
        yield "min_delta", f"got {gate.min_delta:g}, but {unit}"
    for name, limit in (("min_value", gate.min_value), ("max_value", gate.max_value)):
        if limit is not None and not 0 <= limit <= 1:
            yield name, f"got {limit:g}, but {unit}"


def _of_rewards(config: RunConfig) -> list[str]:
    rewards = config.rewards
    own = config.model.reward_path or config.reward_model
    if own and not any(reward.of_run for reward in rewards):
        rewards = (*rewards, Reward(reward_type="model"))
    names = metric_names(rewards)
    return [*names, "reward"] if len(names) > 1 else names
