"""`aligntune`: one command per verb, each a few lines over a library function.

Only click is imported here. Everything else, down to pathlib and json, is imported by the command
that needs it, so that `--help`, `validate` and `plan` answer at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from aligntune import startup
from aligntune.cli_config import (
    WITHOUT_MODEL,
    checked,
    command_line,
    config_options,
    json_option,
    print_json,
    say,
)
from aligntune.cli_deploy import commands as deployment_commands
from aligntune.cli_mirror import mirror
from aligntune.cli_models import models, promote, rollback
from aligntune.cli_retrain import retrain
from aligntune.cli_rewards import print_table, rewards
from aligntune.cli_runs import compare, runs
from aligntune.cli_sweep import sweep
from aligntune.cli_sync import sync
from aligntune.cli_verify import verify

if TYPE_CHECKING:
    from pathlib import Path


PLAN_SECONDS = 20.0
"""For each question to a hub that does not answer: a plan loses nothing, and somebody waits."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aligntune-pipeline", prog_name="aligntune")
def app() -> None:
    """Post-training pipelines for language models: one YAML file, stages that are reused or
    resumed, Prefect and MLflow."""


_ELSEWHERE = (
    rewards,
    runs,
    compare,
    sweep,
    mirror,
    sync,
    models,
    promote,
    rollback,
    retrain,
    verify,
)
for _command_elsewhere in (*_ELSEWHERE, *deployment_commands):
    app.add_command(_command_elsewhere)


@app.command()
@config_options
@json_option
def train(paths: tuple[Path, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Run every stage in this process. The same command again resumes or reuses."""
    from aligntune.direct import post_train

    command = command_line("train", paths, overrides)
    # A program that reads the result wants MLflow's ids in it.
    afterwards = not as_json
    post_train(checked(paths, overrides), command, as_json=as_json, afterwards=afterwards)


@app.command()
@config_options
def flow(paths: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Run every stage as a task of a Prefect flow."""
    checked(paths, overrides)
    from flows.post_train import run

    run(paths, overrides, command_line("flow", paths, overrides))


@app.command()
@config_options
@click.option("--samples", type=click.IntRange(0, 10), default=2, help="Rows shown per source.")
@json_option
def data(paths: tuple[Path, ...], overrides: tuple[str, ...], samples: int, as_json: bool) -> None:
    """Run the data stages only, and show what they made of each source."""
    from aligntune.direct import prepare_data

    command = command_line("data", paths, overrides)
    prepare_data(checked(paths, overrides), command, samples=samples, as_json=as_json)


@app.command("eval")
@partial(config_options, flags=WITHOUT_MODEL)
@click.option(
    "--model",
    required=True,
    metavar="MODEL",
    help="base, a run's name, models:/name@alias, a directory or a hub id.",
)
@click.option(
    "--against", multiple=True, default=("base",), show_default=True, help="What to compare with."
)
@json_option
def evaluate(
    paths: tuple[Path, ...], overrides: tuple[str, ...], as_json: bool, **given: Any
) -> None:
    """Measure a model on a config's held-out data, and print every metric with its interval."""
    from aligntune.evaluating import evaluate_model

    command = command_line("eval", paths, overrides) + f" --model {given['model']}"
    config, against = checked(paths, overrides), given["against"]
    evaluate_model(config, command, given["model"], against, as_json=as_json)


@app.command()
@config_options
@click.option("--on", metavar="DEVICES", help="What training would need on 8xH100-80GB instead.")
@json_option
def plan(
    paths: tuple[Path, ...], overrides: tuple[str, ...], on: str | None, as_json: bool
) -> None:
    """Show what a run would do: which stages, reused or run, and why, and what training needs."""
    from aligntune.estimate.device import devices
    from aligntune.forecast import forecasts
    from aligntune.hub_retry import at_most
    from aligntune.plan import plan as make_plan
    from aligntune.show import plan_record, show_plan

    elsewhere = devices(on) if on else None
    config = checked(paths, overrides)
    with at_most(PLAN_SECONDS):
        made = make_plan(config)
        needed = forecasts(made, elsewhere)
    if as_json:
        print_json(plan_record(made, needed))
    else:
        show_plan(made, needed, elsewhere)


@app.command()
@config_options
@json_option
@click.option("--fix", is_flag=True, help="Write what was repaired back to the files.")
def validate(paths: tuple[Path, ...], overrides: tuple[str, ...], as_json: bool, fix: bool) -> None:
    """Check a config without running it: every setting, and the files and packages it needs."""
    from aligntune.check import check
    from aligntune.errors import ConfigError

    if fix:
        _fix(paths)
    try:
        found = check(paths, overrides)
    except ConfigError as error:
        if as_json:
            print_json({"ok": False, "problems": str(error).splitlines()})
        raise
    if as_json:
        print_json({"ok": True} | found.record())
        return
    say(found.notes)
    config = found.config
    click.echo(f"{', '.join(map(str, paths))}: ok ({config.algo}, {config.logging.run_name})")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a config, for editors."""
    from aligntune.config.run import json_schema

    print_json(json_schema())


@app.command()
@click.argument("algo")
@click.option("--output", "-o", "name", type=click.Path(), help="File to write.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def init(algo: str, name: str | None, force: bool) -> None:
    """Write a config for an algorithm, with every setting explained."""
    from pathlib import Path

    from aligntune.errors import ConfigError
    from aligntune.initial import initial

    output = Path(name or "run.yaml")
    text = initial(algo, output)
    if name is None:
        click.echo(text, nl=False)
        return
    if output.exists() and not force:
        raise ConfigError(f"{output} exists already; name another file, or give --force")
    _write(output, text)
    click.echo(f"{output}: written; `aligntune validate --config {output}` checks it")


@app.command()
@click.argument("name", required=False)
@click.option("--rewards", "of_rewards", is_flag=True, help="List the built-in rewards instead.")
@json_option
def configs(name: str | None, of_rewards: bool, as_json: bool) -> None:
    """List the configs that come with aligntune, or print one."""
    from aligntune import shipped

    if name:
        text = shipped.text(name)
        if as_json:
            print_json({name: text})
        else:
            click.echo(text, nl=False)
        return
    rows = shipped.rewards() if of_rewards else shipped.summaries()
    if as_json:
        print_json(rows)
        return
    print_table(rows)


@app.command()
@click.option("--output-dir", type=click.Path(), help="Where runs would write.")
@json_option
def doctor(output_dir: str | None, as_json: bool) -> None:
    """Look at this machine: versions, devices, precision, servers, credentials."""
    from aligntune.doctor import examine

    findings = examine(output_dir)
    if as_json:
        print_json([finding._asdict() for finding in findings])
        return
    for finding in findings:
        click.echo(f"{finding.state:<8} {finding.what:<16} {finding.says}")


@app.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options; source it from the shell's start-up."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(app, {}, "aligntune", "_ALIGNTUNE_COMPLETE").source())


def _fix(paths: Sequence[Path]) -> None:
    from aligntune.config.document import fixed

    for path in paths:
        text, repairs = fixed(path)
        if repairs:
            _write(path, text)
            lines = ", ".join(str(repair.line) for repair in repairs)
            click.echo(f"{path}: indented lines {lines}", err=True)


def _write(path: Path, text: str) -> None:
    """Put `text` where `path` leads, through links, and keep the permissions of what it replaces.

    Raises:
        ConfigError: there can be no such file.
        ResourceError: it may not be written, or the disk is full.
    """
    from aligntune.artifacts import write_atomic
    from aligntune.errors import ConfigError, ResourceError

    target = path.resolve()
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else None
        write_atomic(target, text)
        if mode is not None:
            target.chmod(mode)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ConfigError(
            f"{path}: cannot be written; name a file in a directory that exists"
        ) from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ResourceError(
            f"{path}: cannot be written: {reason}; make room or change its permissions"
        ) from None


def main() -> None:
    """Entry point: a mistake is one message and an exit code, a bug a file with its traceback."""
    from aligntune.errors import AlignTuneError, no_room, reason

    startup.quick()
    startup.see_here()
    try:
        app(standalone_mode=False)
        startup.ended()
    except AlignTuneError as error:
        _fail(error.exit_code, str(error))
    except click.exceptions.Exit as done:
        raise SystemExit(done.exit_code) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, click.Abort):
        _fail(75, "stopped at once; the same command continues from the last checkpoint")
    except Exception as error:  # noqa: BLE001  # the boundary where a bug becomes a report
        if no_room(error):
            _fail(74, f"{reason(error)}; make room or give access, then run the same command again")
        _fail(70, f"{type(error).__name__}: {error}; this is a bug, {_traceback()}")


def _fail(code: int, message: str) -> Any:
    from aligntune.aside import leave
    from aligntune.config.naming import printable
    from aligntune.errors import public

    lines = public(message).split("\n")
    click.echo(f"ERROR {code} " + "\n".join(map(printable, lines)), err=True)
    leave(code)


def _traceback() -> str:
    """Write the traceback of the current exception to a file and say where."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="aligntune-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exc(file=file)
    return f"its traceback is in {file.name}"
