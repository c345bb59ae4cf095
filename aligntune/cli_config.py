"""What the commands that read a config have in common: its options, and the checks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

Command = Callable[..., None]

FLAGS = {
    "--model": ("model.name_or_path", "The model to start from."),
    "--max-samples": ("datasets.*.max_samples", "At most this many rows of each dataset."),
    "--max-steps": ("train.max_steps", "Optimizer steps."),
    "--learning-rate": ("train.learning_rate", "Peak learning rate; --lr is the same."),
    "--batch-size": ("train.per_device_batch_size", "Rows per device and forward pass."),
    "--output-dir": ("logging.output_dir", "Where the run writes."),
    "--run-name": ("logging.run_name", "What the run is called."),
    "--seed": ("seed", "Seed of every stage."),
}
"""Everyday overrides, each short for a `--set`."""


WITHOUT_MODEL = {flag: setting for flag, setting in FLAGS.items() if flag != "--model"}


def config_options(
    command: Command, flags: Mapping[str, tuple[str, str]] = MappingProxyType(FLAGS)
) -> Command:
    """Give `command` its `paths` and `overrides`; a flag beats a `--set`, wherever it stands."""

    @wraps(command)
    def with_flags(paths: tuple[str, ...], overrides: tuple[str, ...], **options: Any) -> None:
        from pathlib import Path

        given = {flag: options.pop(_parameter(flag)) for flag in flags}
        short = [
            f"{flag} {FLAGS[flag][0]}={value}" for flag, value in given.items() if value is not None
        ]
        command(paths=tuple(map(Path, paths)), overrides=(*overrides, *short), **options)

    for flag, (key, says) in reversed(list(flags.items())):
        names = (flag, "--lr") if flag == "--learning-rate" else (flag,)
        option = click.option(*names, _parameter(flag), metavar="VALUE", help=f"{says}  [{key}]")
        with_flags = option(with_flags)
    with_flags = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one setting: train.beta=0.2, datasets.0.split=test.",
    )(with_flags)
    return click.option(
        "--config",
        "-c",
        "paths",
        multiple=True,
        required=True,
        type=click.Path(),
        help="Run config, YAML. Several are merged from left to right.",
    )(with_flags)


def _parameter(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and no table.")
output_option = click.option(
    "--output-dir", default="./output", show_default=True, help="Where the runs are."
)


def checked(paths: Sequence[Path], overrides: Sequence[str]) -> Any:
    """The config, after the same checks as `validate`."""
    from aligntune.check import check

    found = check(paths, overrides)
    say(found.notes)
    return found.config


def say(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(note, err=True)


def print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def command_line(verb: str, paths: tuple[Path, ...], overrides: tuple[str, ...]) -> str:
    """What was typed, as one line that a shell would read the same way."""
    import shlex

    parts = ["aligntune", verb]
    for path in paths:
        parts += ["--config", str(path)]
    for override in overrides:
        flag, _, rest = override.partition(" ")
        if override.startswith("--"):
            parts += [flag, rest.partition("=")[2]]
        else:
            parts += ["--set", override]
    return shlex.join(parts)
