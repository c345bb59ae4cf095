"""Hyper-parameters that contradict each other."""

from collections.abc import Iterator

from aligntune.config.algo import GROUP, ONLINE, Trained
from aligntune.config.naming import KeyPath
from aligntune.config.presets import LOSS_TYPES, SMOOTHED, alone, is_dual, resolved
from aligntune.config.train import Bolt, Peft, Train


def training_problems(
    at: KeyPath, algo: Trained, train: Train, peft: Peft | None, max_seq_length: int
) -> Iterator[tuple[KeyPath, str]]:
    """(setting, what is wrong with it) of the `train` section at `at`."""
    known = LOSS_TYPES.get(algo)
    if known and train.loss_type not in (None, *known):
        yield (
            (*at, "loss_type"),
            f"{algo} has no loss {train.loss_type!r}; choose from {', '.join(known)}",
        )
    if algo == "dpo" and train.beta == 0:
        yield (*at, "beta"), "dpo with beta 0 learns nothing; give a number > 0, as 0.1"
    if algo == "dpo" and train.loss_type == "exo_pair" and not train.label_smoothing:
        yield (*at, "loss_type"), "exo_pair needs `label_smoothing` > 0, as 1e-3"
    if algo == "dpo" and train.label_smoothing and train.loss_type not in (None, *SMOOTHED):
        yield (
            (*at, "label_smoothing"),
            f"{train.loss_type} has no smoothed form; remove it, or use {', '.join(SMOOTHED)}",
        )
    if algo in ONLINE:
        yield from _online(at, algo, resolved(train, algo, peft, max_seq_length))


def _online(at: KeyPath, algo: Trained, train: Train) -> Iterator[tuple[KeyPath, str]]:
    size, passes = train.num_generations or 1, train.steps_per_generation or 1
    rows = train.per_device_batch_size * passes
    if size == 1 and algo in GROUP - {"bolt"}:
        yield (
            (*at, "num_generations"),
            f"{algo} compares answers to one prompt, so it needs at least 2 of them; set "
            "`num_generations`, and a `per_device_batch_size` that it divides",
        )
    if rows % size:
        yield (
            (*at, "num_generations"),
            f"{size} answers per prompt do not divide the {rows} of a round of sampling "
            "(`per_device_batch_size` times `steps_per_generation`)",
        )
    if passes % train.gradient_accumulation_steps:
        yield (
            (*at, "steps_per_generation"),
            f"{passes} must be a multiple of `gradient_accumulation_steps` "
            f"({train.gradient_accumulation_steps})",
        )
    prompt, answer = train.max_prompt_length or 0, train.max_completion_length or 0
    if prompt + answer > (train.max_length or 0):
        yield (
            (*at, "max_completion_length"),
            f"prompt ({prompt}) and answer ({answer}) do not fit into `max_length` "
            f"({train.max_length}) tokens",
        )
    if train.kl_target and not train.kl_coef:
        yield (*at, "kl_target"), "there is no KL penalty to adapt; set `kl_coef` above 0"
    if (train.overlong_buffer or 0) > answer:
        yield (
            (*at, "overlong_buffer"),
            f"{train.overlong_buffer} is more than `max_completion_length` ({answer}), so every "
            "answer would be punished; lower it",
        )
    if train.max_resampling and train.scale_rewards == "batch":
        yield (
            (*at, "max_resampling"),
            "a batch that is put together has no spread of its own to scale by; set "
            "`scale_rewards` to group or none, or `max_resampling` to 0",
        )
    yield from _mirror(at, train)
    if algo == "bolt":
        yield from _bolt(at, train)


def _bolt(at: KeyPath, train: Train) -> Iterator[tuple[KeyPath, str]]:
    section = train.bolt or Bolt()
    if section.rho_min > section.rho_max:
        yield (*at, "bolt", "rho_min"), "must not be more than `rho_max`"
    if train.scale_rewards == "group":
        yield (
            (*at, "scale_rewards"),
            "bolt compares with a prompt's history and not with its group; use batch or none",
        )
    if section.tracker:
        return
    for name in ("curriculum", "warm_start"):
        if getattr(section, name):
            message = "needs the beliefs that `tracker: false` does not keep; remove one of them"
            yield (*at, "bolt", name), message
    if train.num_generations == 1:
        yield (
            (*at, "num_generations"),
            "without a tracker an answer is compared with others to its prompt; set at least 2",
        )


def _mirror(at: KeyPath, train: Train) -> Iterator[tuple[KeyPath, str]]:
    section = train.gbmpo
    if section is None:
        return
    if is_dual(section) and not train.beta:
        yield (
            (*at, "beta"),
            f"{section.divergence} has KL beside it, whose weight is 0; raise it, or use "
            f"{alone(section)}",
        )
    if section.full_vocabulary and section.divergence in ("l2", "l2kl"):
        yield (
            (*at, "gbmpo", "full_vocabulary"),
            f"{section.divergence} is no divergence of distributions, and tokens that hardly occur "
            "would decide its sum; set it to false, or use prob_l2 or kl",
        )
    if section.mirror_path and section.divergence != "neural":
        yield (
            (*at, "gbmpo", "mirror_path"),
            f"{section.divergence} has no parameters to read; set `divergence` to neural, or "
            "remove it",
        )
