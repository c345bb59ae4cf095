"""`aligntune retrain`. As in `cli`, a command imports what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aligntune.cli_config import checked, command_line, config_options

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@config_options
def retrain(paths: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Run the pipeline if data, settings or gates have changed since the champion; else say so."""
    checked(paths, overrides)
    from flows.retrain import run

    run(paths, overrides, command_line("retrain", paths, overrides))
