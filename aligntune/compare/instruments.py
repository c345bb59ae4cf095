"""By what a metric is measured, besides rows and conditions: runs can mean different things by one
name, and are not held against each other by it then."""

from collections.abc import Mapping
from typing import Any

from aligntune.config.rewards import Reward, metric_names
from aligntune.evaluate.allowed import PER_TOKEN

COMBINED = ("weight", "scale", "clip_low", "clip_high", "gate")
"""What of a reward matters to their sum alone."""


def instrument(metric: str, identity: Mapping[str, Any], tokens: str = "") -> dict[str, Any]:
    """What the `metric` of an evaluation with this `identity`, of a model with these `tokens`,
    depends on; empty where everybody measures it alike."""
    inputs = identity.get("inputs", {})
    found: dict[str, Any] = {"tokens": tokens} if metric in PER_TOKEN else {}
    if metric == "kl_to_base":
        found["base model"] = inputs.get("reference")
    listed = identity.get("config", {}).get("rewards") or ()
    names = metric_names([Reward.model_construct(**item) for item in listed])
    judges = {
        str(at): _judge(at, item, identity)
        | ({part: item.get(part) for part in COMBINED} if metric == "reward" else {})
        for at, (name, item) in enumerate(zip(names, listed, strict=True))
        if metric in ("reward", name)
    }
    return found | ({"rewards": judges} if judges else {})


def _judge(at: int, reward: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """What decides about the scores of one reward."""
    made = Reward.model_construct(**reward)
    # A model, or code that is not ours, is known by what it is and not by where it lies.
    source = identity.get("sources", {}).get(f"rewards[{at}]") or made.model_name
    return {
        "reward_type": made.reward_type,
        "params": made.params,
        "model": identity["inputs"].get("reward") if made.of_run else source,
        "error_value": made.error_value if made.on_error == "value" else None,
    }
