"""`aligntune runs` and `aligntune compare`. As in `cli`, a command imports what it needs."""

from __future__ import annotations

from typing import Any

import click

from aligntune.cli_config import json_option, output_option

_filter = click.option(
    "--filter",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="algo=dpo, train.beta>=0.2, exact_match>0.5, model~SmolLM2, state!=failed; repeatable.",
)


@click.command()
@output_option
@_filter
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@json_option
def runs(output_dir: str, conditions: tuple[str, ...], limit: int | None, as_json: bool) -> None:
    """List the runs, newest first."""
    from pathlib import Path

    from aligntune.compare.resolve import listed
    from aligntune.compare.show import run_record, show_runs
    from aligntune.console import screen

    found = listed(Path(output_dir), conditions)[:limit]
    if as_json:
        _print_json([run_record(run) for run in found])
    elif found:
        show_runs(found, screen())
    else:
        click.echo(f"no run below {output_dir}{' is like that' if conditions else ''}")


@click.command()
@click.argument("names", nargs=-1, metavar="RUN RUN ...")
@output_option
@_filter
@click.option("--samples", type=click.IntRange(0, 100), default=3, help="Prompts shown of a kind.")
@click.option("--html", "page", type=click.Path(), metavar="FILE", help="Write a page.")
@json_option
def compare(
    names: tuple[str, ...],
    output_dir: str,
    conditions: tuple[str, ...],
    samples: int,
    page: str | None,
    as_json: bool,
) -> None:
    """Hold runs against the first one: settings, data, results, curves, answers.

    RUN is a run's name, its directory, or its MLflow run id.
    """
    from pathlib import Path

    from aligntune.compare.comparison import compared, record
    from aligntune.compare.resolve import resolved
    from aligntune.compare.show import show_comparison
    from aligntune.console import screen

    output = Path(output_dir)
    made = compared(resolved(names, conditions, output), output, samples)
    if page:
        from aligntune.report.compare import write

        write(made, Path(page))
    if as_json:
        _print_json(record(made))
    elif page:
        click.echo(f"{page}: written")
    else:
        show_comparison(made, screen())


def _print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
