"""Settings of rewards and reward models that contradict each other."""

from collections.abc import Collection, Iterator

from aligntune.config.algo import ONLINE
from aligntune.config.naming import KeyPath
from aligntune.config.rewards import GUESSED
from aligntune.config.run import RunConfig


def contradictions(config: RunConfig) -> Iterator[tuple[KeyPath, str]]:
    """(setting, what is wrong with it): a run has one reward model, and something to measure it
    on."""
    section, path = config.reward_model, config.model.reward_path
    own = [index for index, reward in enumerate(config.rewards) if reward.of_run]
    if section is None and path is None:
        for index in own:
            yield (
                ("rewards", index, "reward_type"),
                "reward 'model' needs `model_name`, or a reward model of the run: `reward_model` "
                "trains one, `model.reward_path` names one",
            )
    for index in own[1:]:
        yield (
            ("rewards", index, "reward_type"),
            "the run's reward model is among the rewards already; give this one a `model_name`, or "
            "remove it",
        )
    if section is None:
        return
    if path is not None:
        yield (
            ("model", "reward_path"),
            "`reward_model` trains a reward model and `reward_path` names another; remove one of "
            "them",
        )
    if all(d.eval_fraction == 0 and d.eval_split is None for d in section.datasets):
        yield (
            ("reward_model", "datasets", 0, "eval_fraction"),
            "nothing is held out to measure the reward model on; raise it for one dataset",
        )
    if section.revision is not None and section.name_or_path is None:
        yield (
            ("reward_model", "revision"),
            "it is for `reward_model.name_or_path`, which is not given; remove it, or set "
            "`model.revision`",
        )
    for index, dataset in enumerate(section.datasets):
        if dataset.eval_split is not None and dataset.eval_fraction is not None:
            at = ("reward_model", "datasets", index, "eval_fraction")
            yield at, "`eval_split` is held out; remove one of them"


def unpaired(config: RunConfig, given: Collection[KeyPath]) -> Iterator[tuple[KeyPath, str]]:
    """(setting, what is wrong with it) for each of those `given` that needs pairs, where the reward
    model is regressed on scores."""
    section = config.reward_model
    if section is None or section.objective != "regression":
        return
    for name in ("center_rewards_coefficient", "margin_scale"):
        at = ("reward_model", "train", name)
        if at in given and getattr(section.train, name) is not None:
            yield at, "regression does not use it; it is for `objective: bradley_terry`"


def guesses(config: RunConfig, *, optimised: bool) -> Iterator[tuple[KeyPath, str]]:
    """(setting, what is wrong with it) for each reward that is a rough guess without a model, of
    those that are optimised or of the others."""
    for index, reward in enumerate(config.rewards):
        if reward.reward_type not in GUESSED or reward.model_name:
            continue
        if optimised != (config.algo in ONLINE and reward.weight != 0):
            continue
        what = (
            "a policy would learn to please it; give a reward model with `model_name`, or report "
            "it with `weight: 0`"
            if optimised
            else "it is reported, and says little; a reward model with `model_name` says more"
        )
        yield (
            ("rewards", index, "reward_type"),
            f"{reward.reward_type} without a model is a rough guess: {what}",
        )
