"""Settings that do nothing, or something else than they seem to do."""

from collections.abc import Collection, Iterator, Sequence
from functools import reduce

from aligntune.config.data import Dataset
from aligntune.config.logging import SampleLogging
from aligntune.config.naming import KeyPath
from aligntune.config.run import RunConfig


def idle(config: RunConfig, given: Collection[KeyPath]) -> Iterator[tuple[KeyPath, str]]:
    """(setting, why it does nothing) for each of those `given` that another one turns off."""
    for at, names, why in _off(config):
        section = reduce(getattr, at, config)
        for name in names:
            if (*at, name) in given and getattr(section, name):
                yield (*at, name), why


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
    if config.sample_logging and not config.sample_logging.enabled:
        names = [name for name in SampleLogging.model_fields if name != "enabled"]
        yield ("sample_logging",), names, "`enabled: false` takes no samples"


def shares(config: RunConfig) -> Iterator[tuple[KeyPath, str]]:
    """(setting, what it means) for each percentage that looks like a share."""
    lists: dict[KeyPath, Sequence[Dataset]] = {
        ("datasets",): config.datasets,
        ("evaluation", "datasets"): config.evaluation.datasets,
        ("sft", "datasets"): config.sft.datasets if config.sft else (),
        ("reward_model", "datasets"): config.reward_model.datasets if config.reward_model else (),
    }
    for at, datasets in lists.items():
        for index, dataset in enumerate(datasets):
            if (percent := dataset.percent) < 1:
                yield (
                    (*at, index, "percent"),
                    f"this is {percent:g} % of the rows; for the share {percent:g} of them write "
                    f"{100 * percent:g}",
                )
