"""`aligntune deploy`, `deployments`, `trigger`, `pause`, `resume` and `emit`: what Prefect runs by
itself. As in `cli`, a command imports what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aligntune.cli_config import config_options, json_option, print_json, say

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@config_options
@click.option("--pool", metavar="POOL", help="The work pool to run it.  [deployment.pool]")
@click.option("--serve", is_flag=True, help="Run it in this process until it is stopped.")
@json_option
def deploy(
    paths: tuple[Path, ...],
    overrides: tuple[str, ...],
    pool: str | None,
    serve: bool,
    as_json: bool,
) -> None:
    """Tell Prefect when a config runs: create or update its deployment.

    What `deployment` and `schedules` say is made so; the same config again changes nothing.

    \b
    --serve        this process runs what is due; no pool, no worker
    a process pool its workers run in the directory that this command is typed in
    other pools    the config has to be where `deployment.configs` says, on a volume or in
                   the image, which needs aligntune installed; paths in it are relative to
                   the working directory of the image, and what is on this machine is not
                   looked at
    """
    from asyncio import run

    chosen = (f"--pool deployment.pool={pool}",) if pool else ()
    loaded = _loaded(paths, (*overrides, *chosen))
    deployment = loaded.config.deployment
    _can_serve(deployment.pool, serve)
    from flows.deploy import deploy as apply

    done, warnings = run(apply(loaded, paths, overrides))
    say([f"WARNING {warning}" for warning in warnings])
    if as_json:
        print_json([{"name": each.name, "id": str(each.id), "did": each.did} for each in done])
    else:
        for each in done:
            for line in each.did or ["nothing changed"]:
                click.echo(f"{each.name}: {line}")
    if serve:
        _serve(done, loaded.config.logging.level)
    elif deployment.pool is None:
        click.echo("its runs wait for `aligntune deploy --serve`, or for a pool: --pool", err=True)


def _loaded(paths: tuple[Path, ...], overrides: tuple[str, ...]) -> Any:
    """The config; where it is for other machines, what this one has says nothing about it."""
    from aligntune.check import check
    from aligntune.config.load import read

    loaded = read(paths, overrides)
    if not loaded.config.deployment.configs:
        say(check(paths, overrides).notes)
    return loaded


def _can_serve(pool: str | None, serve: bool) -> None:
    from aligntune.errors import ConfigError

    if serve and pool:
        raise ConfigError(
            f"--serve runs it in this process, and the workers of pool {pool!r} would run it too; "
            "leave out one of them, or give `--set deployment.pool=null`"
        )


def _serve(done: Any, level: str) -> None:
    from aligntune.console import configure, screen
    from flows.serve import serve

    configure(level, screen())
    click.echo("serving; Ctrl-C stops", err=True)
    serve(done)


@click.command()
@json_option
def deployments(as_json: bool) -> None:
    """List what is deployed: when it runs next, where, and how its last run ended."""
    from asyncio import run

    from flows.deployments import listed

    records = [each.record() for each in run(listed())]
    if as_json:
        print_json(records)
        return
    from aligntune.show_deployments import show

    show(records)


@click.command()
@click.argument("name")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting of this run.",
)
@click.option("--watch", "watched", is_flag=True, help="Wait for its end, and exit with its code.")
def trigger(name: str, overrides: tuple[str, ...], watched: bool) -> None:
    """Start a run of the deployment NAME now.

    With --watch the exit code is 0 where the run completed, 75 where it was cancelled,
    interrupted or refused because another goes on, 69 where its process was lost, and else what
    the run would have ended with here.
    """
    import asyncio

    from flows.deployments import trigger as start

    run, waits = asyncio.run(start(name, overrides))
    click.echo(f"{name}: started {run.name} ({run.id})")
    if waits:
        click.echo(waits, err=True)
    if watched:
        code = asyncio.run(_watch(run))
        raise SystemExit(code)


async def _watch(run: Any) -> int:
    from flows.deployments import exit_code, watch

    code = 0
    async for state in watch(run):
        said = f"  {state.message}" if state.message else ""
        click.echo(f"{state.timestamp:%H:%M:%S}  {state.name}{said}")
        code = exit_code(state)
    return code


@click.command()
@click.argument("name")
def pause(name: str) -> None:
    """Start no more scheduled runs of the deployment NAME; those that go on are left alone."""
    _pause(name, paused=True)


@click.command()
@click.argument("name")
def resume(name: str) -> None:
    """Let the schedules of the deployment NAME start runs again."""
    _pause(name, paused=False)


def _pause(name: str, *, paused: bool) -> None:
    from asyncio import run

    from flows.deployments import pause as change

    changed = run(change(name, paused=paused))
    click.echo(f"{name}: {'' if changed else 'was '}{'paused' if paused else 'active'}")


@click.command()
@click.argument("event")
@click.option("--resource", required=True, help="What it is about: `dataset.pairs`.")
@click.option(
    "--payload", multiple=True, metavar="KEY=VALUE", help="What else is known: `revision=3f2a`."
)
def emit(event: str, resource: str, payload: tuple[str, ...]) -> None:
    """Tell Prefect of an EVENT, which runs what `deployment.triggers` has it for."""
    from asyncio import run

    from aligntune.config.document import parse_value
    from aligntune.errors import ConfigError
    from flows.deployments import emit as tell

    known = {}
    for each in payload:
        key, equals, value = each.partition("=")
        if not (key and equals):
            raise ConfigError(f"--payload {each[:80]!r} is no KEY=VALUE; write revision=3f2a")
        found = parse_value(value, f"--payload {key}")[0]
        # Prefect writes a value anew where it fills it in: 2026.10 would become 2026.1 there.
        known[key] = found if isinstance(found, (list, dict)) or str(found) == value else value
    click.echo(f"{event}: {run(tell(event, resource, known))}")


commands = (deploy, deployments, trigger, pause, resume, emit)
