"""`aligntune mirror`. As in `cli`, a command imports what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aligntune.cli_config import checked, command_line, config_options, json_option

if TYPE_CHECKING:
    from pathlib import Path

_ABOVE_0 = click.FloatRange(0, min_open=True)


@click.command()
@config_options
@click.option(
    "--rounds", type=click.IntRange(1), default=15, show_default=True, help="At most so many."
)
@click.option(
    "--members", type=click.IntRange(2), default=10, show_default=True, help="Maps per round."
)
@click.option(
    "--steps", type=click.IntRange(1), default=100, show_default=True, help="Of training per map."
)
@click.option("--metric", default="exact_match", show_default=True, help="Of the evaluation.")
@click.option(
    "--sigma",
    type=_ABOVE_0,
    default=0.01,
    show_default=True,
    help="Size of a change.",
)
@click.option("--rate", type=_ABOVE_0, default=0.01, show_default=True, help="Length of a step.")
@click.option(
    "--patience", type=click.IntRange(1), default=5, show_default=True, help="Rounds without gain."
)
@json_option
def mirror(
    paths: tuple[Path, ...], overrides: tuple[str, ...], as_json: bool, **given: Any
) -> None:
    """Learn gbmpo's mirror map by evolution strategies: maps that are tried train a policy each,
    and the metric decides. The same command again resumes or reuses."""
    from aligntune.errors import ConfigError

    if given["members"] % 2:
        raise ConfigError(f"--members: maps come in pairs, and {given['members']} is odd")
    config = checked(paths, overrides)
    from aligntune.losses.evolution import Search
    from aligntune.mirrors import Asked, learn

    asked = Asked(
        config, given.pop("metric"), given.pop("steps"), command_line("mirror", paths, overrides)
    )
    learn(asked, Search(**given, seed=config.seed), as_json=as_json)
