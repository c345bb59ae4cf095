"""What no single setting of a gate shows."""

from collections.abc import Iterator
from typing import get_args

from aligntune.config.evaluation import Metric
from aligntune.config.naming import KeyPath
from aligntune.config.rewards import Reward, metric_names
from aligntune.config.run import RunConfig
from aligntune.errors import unknown


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


def _of_rewards(config: RunConfig) -> list[str]:
    rewards = config.rewards
    own = config.model.reward_path or config.reward_model
    if own and not any(reward.of_run for reward in rewards):
        rewards = (*rewards, Reward(reward_type="model"))
    names = metric_names(rewards)
    return [*names, "reward"] if len(names) > 1 else names
