"""What no single setting shows: settings that contradict each other, and those that do nothing."""

import os
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from aligntune.config.algo import COMPARED, GROUP, ONLINE, TASK, Trained
from aligntune.config.data import Dataset
from aligntune.config.gates import gate_problems
from aligntune.config.idle_rules import idle, shares, weights
from aligntune.config.logging import Launch
from aligntune.config.naming import KeyPath
from aligntune.config.presets import PRESETS, resolved, used
from aligntune.config.retrain_rules import retrain_problems, retrain_warnings
from aligntune.config.reward_rules import contradictions, guesses, unpaired
from aligntune.config.rewards import Reward
from aligntune.config.run import RunConfig
from aligntune.config.schedule_rules import schedule_problems
from aligntune.config.train import Train
from aligntune.config.train_rules import training_problems

_INSTEAD: dict[tuple[str, str], str] = {
    ("beta", "ppo"): "kl_coef",
    ("epsilon", "ppo"): "cliprange",
    ("num_iterations", "ppo"): "num_ppo_epochs",
    **{("kl_coef", algo): "beta" for algo in (*GROUP, "dpo")},
    **{("cliprange", algo): "epsilon" for algo in GROUP},
    **{("num_ppo_epochs", algo): "num_iterations" for algo in GROUP},
}
"""(setting, algorithm that does not have it) -> the setting that the algorithm has for it."""


_OWNERS = {"reward": "reward_model"}
"""What a preset is called in a config where that is not an algorithm's name."""


class Problem(NamedTuple):
    path: KeyPath
    """The setting to point at."""
    message: str


def problems(config: RunConfig) -> list[Problem]:
    """Every contradiction in `config`, each with what to do about it."""
    return [
        *_run(config),
        *_rewards(config),
        *_logging(config),
        *_model(config),
        *_heldout(config),
        *(Problem(*found) for found in gate_problems(config)),
        *(Problem(*found) for found in _trainings(config)),
        *(Problem(*found) for found in guesses(config, optimised=True)),
        *(Problem(*found) for found in contradictions(config)),
        *(Problem(*found) for found in schedule_problems(config)),
        *(Problem(*found) for found in retrain_problems(config)),
    ]


def warnings(config: RunConfig, given: Collection[KeyPath]) -> list[Problem]:
    """The settings among `given` that have no effect or a surprising one."""
    found = list(_unused(("train",), config.algo, config.train, given))
    found += [Problem(*entry) for entry in retrain_warnings(config, given)]
    found += [
        Problem(*entry) for entry in (*idle(config, given), *shares(config), *weights(config))
    ]
    found += [Problem(*entry) for entry in unpaired(config, given)]
    if config.sft:
        found += _unused(("sft", "train"), "sft", config.sft.train, given)
    if config.reward_model:
        found += _unused(("reward_model", "train"), "reward", config.reward_model.train, given)
    judged = [name for name in ("rewards", "reward_model") if getattr(config, name)]
    if judged and config.algo not in ONLINE:
        found.append(
            Problem(
                (judged[0],),
                f"{config.algo} does not optimise rewards; evaluation reports them for every model",
            )
        )
    found += _dropped(config)
    found += _unwatched(config)
    found += _unclipped(config.rewards)
    found += [Problem(*guess) for guess in guesses(config, optimised=False)]
    found += _read_as(("datasets",), config.datasets, config.algo)
    if config.sft:
        found += _read_as(("sft", "datasets"), config.sft.datasets, "sft")
    if config.algo in ONLINE:
        found += _sampling(config)
    found += _warmed(("train",), config.train)
    if config.sft:
        found += _warmed(("sft", "train"), config.sft.train)
    if config.reward_model:
        found += _warmed(("reward_model", "train"), config.reward_model.train)
    return found


def _unwatched(config: RunConfig) -> Iterator[Problem]:
    launch, usual = config.launch, Launch.model_fields["hang_timeout"].default
    own = any(":" in reward.reward_type for reward in config.rewards)
    if launch.hang_timeout not in (None, usual) and not launch.apart and not own:
        yield Problem(
            ("launch", "hang_timeout"),
            "`aligntune train` watches processes of their own alone, as flows have them; add "
            "`mode: process`",
        )


def _run(config: RunConfig) -> Iterator[Problem]:
    if config.algo == "sft" and config.sft:
        yield Problem(
            ("sft",),
            "`algo: sft` with an `sft` section would train sft twice; put its settings in "
            "`datasets` and `train`, or choose another `algo`",
        )
    learned = bool(config.model.reward_path or config.reward_model)
    if config.algo in ONLINE and not config.rewards and not learned:
        yield Problem(
            ("algo",),
            f"{config.algo} needs something to optimise; add `rewards`, or a reward model with "
            "`reward_model` or `model.reward_path`",
        )


def _rewards(config: RunConfig) -> Iterator[Problem]:
    for index, reward in enumerate(config.rewards):
        for name, message in _reward(reward, _answers(config)):
            yield Problem(("rewards", index, name), message)
    learned = config.model.reward_path or config.reward_model
    added = [reward for reward in config.rewards if not reward.gate]
    if not config.rewards or (learned and not any(reward.of_run for reward in config.rewards)):
        return
    if not added:
        yield Problem(
            ("rewards",),
            "a gate multiplies the sum of other rewards, and there is no other; add one",
        )
    elif config.algo in ONLINE and not any(reward.weight for reward in added):
        yield Problem(("rewards",), "every weight is 0, so nothing is optimised; raise one")


def _reward(reward: Reward, answers: int | None) -> Iterator[tuple[str, str]]:
    if reward.gate and reward.weight != 1:
        yield "weight", "a gate multiplies the other rewards and has no weight; remove one of them"
    if reward.gate and reward.scale != "none":
        yield "scale", "a gate is a score from 0 to 1 as it is; remove `scale` or `gate`"
    if reward.gate and reward.on_error == "value" and not 0 <= reward.error_value <= 1:
        yield "error_value", "a gate is a score from 0 to 1; give one of these"
    low, high = reward.clip_low, reward.clip_high
    if reward.scale == "clip" and low is None and high is None:
        yield "scale", "there is nothing to clip to; give `clip_low`, `clip_high` or both"
    if low is not None and high is not None and low >= high:
        yield "clip_low", f"must be less than `clip_high` ({high:g})"
    if reward.scale == "group" and answers == 1:
        yield "scale", "a group of one answer has no spread; raise train.num_generations, or zscore"


def _answers(config: RunConfig) -> int | None:
    """Answers to one prompt in training, where it samples."""
    if config.algo not in ONLINE:
        return None
    train = resolved(config.train, config.algo, config.peft, config.model.max_seq_length)
    return train.num_generations or 1


def _logging(config: RunConfig) -> Iterator[Problem]:
    logging = config.logging
    if logging.push_to_hub and not logging.hub_model_id:
        yield Problem(
            ("logging", "push_to_hub"),
            "`push_to_hub: true` needs `hub_model_id: owner/name` beside it",
        )
    if logging.push_to_hub and config.peft and not config.peft.merge:
        yield from _adapter_alone(config)
    both = logging.loggers is not None and logging.report_to is not None
    if both and set(logging.loggers or ()) != set(logging.report_to or ()):
        yield Problem(
            ("logging", "report_to"),
            "`report_to` and `loggers` mean the same, but differ; remove one of them",
        )
    if not logging.load_best:
        return
    place = ("logging", "load_best")
    if config.algo in ONLINE:
        yield Problem(place, f"{config.algo} has no held-out loss to choose by; remove it")
    elif config.evaluation.datasets:
        yield Problem(
            place,
            "with `evaluation.datasets` no rows are held out of `datasets`, so there is no loss to "
            "choose by; remove one of them",
        )
    elif logging.eval_steps is None:
        yield Problem(place, "without evaluation there is no best checkpoint; set `eval_steps`")
    elif logging.save_steps % logging.eval_steps:
        yield Problem(
            place,
            f"only a checkpoint that is measured can be the best; make `save_steps` "
            f"({logging.save_steps}) a multiple of `eval_steps` ({logging.eval_steps})",
        )


def _heldout(config: RunConfig) -> Iterator[Problem]:
    """What is kept from training comes from one place."""
    explicit = bool(config.evaluation.datasets)
    trained: list[tuple[KeyPath, Dataset]] = [
        (("datasets", index), dataset) for index, dataset in enumerate(config.datasets)
    ]
    if config.sft:
        trained += [
            (("sft", "datasets", index), dataset)
            for index, dataset in enumerate(config.sft.datasets)
        ]
    measured: list[tuple[KeyPath, Dataset]] = [
        (("evaluation", "datasets", index), dataset)
        for index, dataset in enumerate(config.evaluation.datasets)
    ]
    for at, dataset in [*measured, *(trained if explicit else ())]:
        for name in ("eval_fraction", "eval_split"):
            if getattr(dataset, name) is not None:
                message = "`evaluation.datasets` say what is held out; remove it, or remove them"
                yield Problem((*at, name), message)
    for at, dataset in trained:
        if dataset.eval_split is not None and dataset.eval_fraction is not None:
            yield Problem((*at, "eval_fraction"), "`eval_split` is held out; remove one of them")
    nothing = all(d.eval_fraction == 0 and d.eval_split is None for d in config.datasets)
    if nothing and not explicit:
        yield Problem(
            ("datasets", 0, "eval_fraction"),
            "nothing is held out to measure on; raise it for one dataset, or add "
            "`evaluation.datasets`",
        )


def _adapter_alone(config: RunConfig) -> Iterator[Problem]:
    start = config.model.start
    if config.sft:
        yield Problem(
            ("peft", "merge"),
            "the adapter is for the model after `sft`, which is not on the hub; push it merged",
        )
    elif start.startswith((".", "/", "~", "package://")) or os.path.exists(start):
        yield Problem(
            ("peft", "merge"),
            "the adapter is for a model that is not on the hub; push it merged, or start from a "
            "hub model",
        )


def _model(config: RunConfig) -> Iterator[Problem]:
    if config.model.quantization and not config.peft:
        yield Problem(
            ("model", "quantization"),
            "quantized weights cannot be trained; add a `peft` section for an adapter on them",
        )
    if config.model.use_unsloth and config.train.precompute_ref_log_probs is True:
        yield Problem(
            ("train", "precompute_ref_log_probs"),
            "unsloth computes log-probabilities its own way, which the reference's would not be "
            "from; remove it, or `model.use_unsloth`",
        )


def _trainings(config: RunConfig) -> Iterator[tuple[KeyPath, str]]:
    longest = config.model.max_seq_length
    yield from training_problems(("train",), config.algo, config.train, config.peft, longest)
    if section := config.sft:
        peft = section.peft or config.peft
        yield from training_problems(("sft", "train"), "sft", section.train, peft, longest)


def _unused(
    at: KeyPath, algo: Trained, train: Train, given: Collection[KeyPath]
) -> Iterator[Problem]:
    for name in Train.model_fields:
        # A written-out config has every key; null says nothing.
        if name in used(algo) or (*at, name) not in given or getattr(train, name) is None:
            continue
        instead = _INSTEAD.get((name, algo))
        owners = [_OWNERS.get(known, known) for known, preset in PRESETS.items() if name in preset]
        which = f"use `{instead}`" if instead else f"it is for {', '.join(owners)}"
        yield Problem((*at, name), f"{algo} does not use it; {which}")


def _warmed(at: KeyPath, train: Train) -> Iterator[Problem]:
    steps = train.max_steps
    if steps and train.warmup_steps >= steps:
        yield Problem(
            (*at, "warmup_steps"),
            f"warm-up takes all {steps} steps; the learning rate never gets to its peak",
        )


def _dropped(config: RunConfig) -> Iterator[Problem]:
    inherited = any(section and not section.peft for section in (config.sft, config.reward_model))
    if config.algo in COMPARED and config.peft and config.peft.dropout and not inherited:
        yield Problem(
            ("peft", "dropout"),
            f"{config.algo} trains without dropout, which would change log-probabilities that are "
            "compared; it is for sft and reward models",
        )


def _unclipped(rewards: Sequence[Reward]) -> Iterator[Problem]:
    for index, reward in enumerate(rewards):
        for name, bound in (("clip_low", reward.clip_low), ("clip_high", reward.clip_high)):
            if reward.scale != "clip" and bound is not None:
                message = "nothing is clipped without `scale: clip`; set that"
                yield Problem(("rewards", index, name), message)


def _read_as(at: KeyPath, datasets: Sequence[Dataset], algo: Trained) -> Iterator[Problem]:
    for index, dataset in enumerate(datasets):
        if dataset.task_type not in (None, TASK[algo]):
            yield Problem(
                (*at, index, "task_type"),
                f"{algo} learns from {TASK[algo]} rows, so that is what it makes of these",
            )


def _sampling(config: RunConfig) -> Iterator[Problem]:
    train = resolved(config.train, config.algo, config.peft, config.model.max_seq_length)
    for name, plain in (("top_p", 1), ("top_k", 0)):
        if getattr(train, name) != plain:
            yield Problem(
                ("train", name),
                "cutting the distribution makes the importance ratios inexact; "
                f"{name}: {plain} samples from all of it",
            )
    passes = (train.steps_per_generation or 1) // train.gradient_accumulation_steps
    rollout = passes * (train.num_iterations or train.num_ppo_epochs or 1)
    if config.logging.save_steps % rollout:
        yield Problem(
            ("logging", "save_steps"),
            f"{config.logging.save_steps} is not a multiple of the {rollout} steps that share one "
            "round of sampling, so checkpoints hold unfinished rounds, and take more space",
        )
