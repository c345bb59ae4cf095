"""What no single setting of retraining and notifications shows."""

from collections.abc import Collection, Iterator

from aligntune.config.naming import KeyPath
from aligntune.config.run import RunConfig

Found = Iterator[tuple[KeyPath, str]]


def retrain_problems(config: RunConfig) -> Found:
    """Settings of a retraining that contradict others: (place, message)."""
    retrain, peft = config.retrain, config.peft
    if config.registry.promote == "never":
        champion = "without promotion there is never a champion; set `registry.promote: auto`"
        approval = "nothing would be promoted after it; set `registry.promote: auto`"
        if retrain.start_from == "champion":
            yield ("retrain", "start_from"), champion
        if retrain.approval == "required":
            yield ("retrain", "approval"), approval
    pushed = config.logging.push_to_hub and peft is not None and not peft.merge
    if retrain.start_from == "champion" and pushed:
        yield (
            ("peft", "merge"),
            "the adapter is for the champion that training starts from, which is not on the hub; "
            "push it merged",
        )
    yield from _notifications(config)


def retrain_warnings(config: RunConfig, given: Collection[KeyPath]) -> Found:
    """Settings of a retraining that do nothing."""
    if config.retrain.approval == "none" and ("retrain", "approval_timeout") in given:
        yield ("retrain", "approval_timeout"), "nobody is asked without `approval: required`"


def _notifications(config: RunConfig) -> Found:
    if config.notifications and config.deployment.flow == "post-train":
        yield (
            ("deployment", "flow"),
            "post-train tells nobody how it ended; use retrain, or remove `notifications`",
        )
    told: set[tuple[str, str]] = set()
    for index, entry in enumerate(config.notifications):
        twice = [outcome for outcome in entry.on if (entry.block, outcome) in told]
        if twice:
            message = f"{entry.block} is told of {', '.join(twice)} already; remove one of them"
            yield ("notifications", index, "on"), message
        told |= {(entry.block, outcome) for outcome in entry.on}
