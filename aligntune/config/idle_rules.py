"""Settings that do nothing, or something else than they seem to do."""

from collections.abc import Collection, Iterator, Sequence
from functools import reduce

from aligntune.config.data import Dataset
from aligntune.config.logging import SampleLogging
from aligntune.config.naming import KeyPath
from aligntune.config.run import RunConfig
from aligntune.config.train import Train


def idle(config: RunConfig, given: Collection[KeyPath]) -> Iterator[tuple[KeyPath, str]]:
    """(setting, why it does nothing) for each of those `given` that another one turns off."""
    for at, names, why in _off(config):
        section = reduce(getattr, at, config)
        for name in names:
            if (*at, name) in given and getattr(section, name):
                yield (*at, name), why


def _trains(config: RunConfig) -> Iterator[tuple[tuple[str, ...], Train]]:
    yield ("train",), config.train
    if config.sft:
        yield ("sft", "train"), config.sft.train
    if config.reward_model:
        yield ("reward_model", "train"), config.reward_model.train


def _off(config: RunConfig) -> Iterator[tuple[tuple[str, ...], Sequence[str], str]]:
    """(section, settings in it, why they do nothing)."""
    if config.evaluation.datasets and not config.reward_model:
        instead = "`evaluation.datasets` are what is held out, and are measured after training"
        yield ("logging",), ("eval_steps",), instead
        yield ("evaluation",), ("heldout_fraction",), instead
    if not config.registry.enabled:
        yield ("registry",), ("name", "promote", "gates"), "`enabled: false` registers nothing"
    elif not config.registry.promotes:
        yield ("registry",), ("gates",), "with `promote: never` no candidate has to pass them"
    if not config.logging.push_to_hub:
        yield ("logging",), ("hub_model_id", "hub_license"), "nothing is pushed; set `push_to_hub`"
    for at, train in _trains(config):
        if train.max_steps and train.num_epochs != Train.model_fields["num_epochs"].default:
            yield at, ("num_epochs",), f"`max_steps: {train.max_steps}` says when training ends"
    if config.sample_logging and not config.sample_logging.enabled:
        names = [name for name in SampleLogging.model_fields if name != "enabled"]
        yield ("sample_logging",), names, "`enabled: false` takes no samples"


def _lists(config: RunConfig) -> dict[KeyPath, Sequence[Dataset]]:
    return {
        ("datasets",): config.datasets,
        ("evaluation", "datasets"): config.evaluation.datasets,
        ("sft", "datasets"): config.sft.datasets if config.sft else (),
        ("reward_model", "datasets"): config.reward_model.datasets if config.reward_model else (),
    }


def weights(config: RunConfig) -> Iterator[tuple[KeyPath, str]]:
    """(setting, why it does nothing) for a weight with nothing beside it, and for repeating what
    has no weights."""
    lists = _lists(config)
    for at, datasets in lists.items():
        if len(datasets) == 1 and datasets[0].weight != 1:
            yield (*at, 0, "weight"), "there is no other dataset, so all of its rows are used"
    if config.mix.repeat and all(len({d.weight for d in rows}) < 2 for rows in lists.values()):
        yield ("mix", "repeat"), "with equal weights all rows are used once, and none is repeated"


def shares(config: RunConfig) -> Iterator[tuple[KeyPath, str]]:
    """(setting, what it means) for each percentage that looks like a share."""
    for at, datasets in _lists(config).items():
        for index, dataset in enumerate(datasets):
            if (percent := dataset.percent) < 1:
                yield (
                    (*at, index, "percent"),
                    f"this is {percent:g} % of the rows; for the share {percent:g} of them write "
                    f"{100 * percent:g}",
                )
