"""`aligntune models`, `promote` and `rollback`. As in `cli`, a command imports what it needs."""

from __future__ import annotations

import click

from aligntune.cli_config import json_option, output_option

_name = click.option("--name", help="The registered model. Default: the only one there is.")


@click.command()
@output_option
@_name
@json_option
def models(output_dir: str, name: str | None, as_json: bool) -> None:
    """List registered models: versions, what they came from, aliases, metrics, decisions."""
    import json

    from aligntune.versions import listed, place, show

    found = listed(place(output_dir), name)
    if as_json:
        click.echo(json.dumps([model.record() for model in found], indent=2))
    else:
        show(found)


@click.command()
@click.argument("run", required=False)
@click.option("--version", help="A version instead of a run's candidate.")
@output_option
@_name
@click.option("--force", is_flag=True, help="Whatever the evidence says; needs --reason.")
@click.option("--reason", help="Why; it is kept on the version.")
def promote(
    run: str | None,
    version: str | None,
    output_dir: str,
    name: str | None,
    force: bool,
    reason: str | None,
) -> None:
    """Make the candidate of RUN, or a version, the champion, if its evidence allows it."""
    from aligntune import promotion
    from aligntune.versions import candidate_of, named, place

    if force != bool(reason):
        raise click.UsageError("--force and --reason go together")
    if (run is None) == (version is None):
        raise click.UsageError("name a run, or a --version")
    where = place(output_dir)
    found, chosen = candidate_of(where, run) if run else (named(where, name), str(version))
    click.echo(promotion.promote(found, chosen.removeprefix("v"), *where, reason=reason))


@click.command()
@output_option
@_name
def rollback(output_dir: str, name: str | None) -> None:
    """Make the previous champion the champion again."""
    from aligntune import promotion
    from aligntune.versions import named, place

    where = place(output_dir)
    click.echo(promotion.rollback(named(where, name), *where))
