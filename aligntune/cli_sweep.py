"""`aligntune sweep`. As in `cli`, the command imports what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aligntune.cli_config import command_line, config_options, json_option, print_json, say

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@config_options
@click.option("--random", "drawn", type=click.IntRange(1), metavar="N", help="N combinations.")
@click.option(
    "--optuna", "trials", type=click.IntRange(1), metavar="N", help="N runs, chosen by Optuna."
)
@click.option("--metric", help="What says which run is best; by default the first gate's.")
@click.option("--draw-seed", default=0, show_default=True, help="Seed of --random and --optuna.")
@click.option("--dry-run", is_flag=True, help="Show the runs and their stages, and run nothing.")
@click.option("--flow", "as_flow", is_flag=True, help="As a Prefect flow with a flow run each.")
@json_option
def sweep(
    paths: tuple[Path, ...],
    overrides: tuple[str, ...],
    drawn: int | None,
    trials: int | None,
    metric: str | None,
    draw_seed: int,
    dry_run: bool,
    as_flow: bool,
    as_json: bool,
) -> None:
    """Run a config with several settings, compare, and register the best as candidate.

    A --set or flag with several values (train.beta=0.05,0.1,0.3) varies; all combinations are run,
    or some with --random or --optuna, which also take ranges: log:1e-6..1e-4, uniform:0..0.3,
    int:4..64. Runs share every stage they can. The same command again goes on.
    """
    from aligntune.console import screen
    from aligntune.errors import ConfigError
    from aligntune.sweep.choose import Choice, chosen
    from aligntune.sweep.runs import plans
    from aligntune.sweep.show import plan_record, show_plan

    if as_flow and as_json:
        raise ConfigError("--json prints what a sweep in this process came to; leave out --flow")
    choice = Choice(drawn, trials, metric, draw_seed)
    made = chosen(paths, overrides, choice)
    say(made.notes)
    planned = plans(made)
    if dry_run and as_json:
        print_json(plan_record(made, planned))
        return
    show_plan(made, planned, screen(stderr=as_json))
    if dry_run:
        return
    if as_flow:
        from flows.sweep import run

        run(paths, overrides, choice, command_line("sweep", paths, overrides))
        return
    from aligntune.sweep.here import sweep_here

    sweep_here(made, as_json=as_json)
