"""`aligntune`: one command per verb, each a few lines over a library function.

Only click is imported here. Everything else is imported by the command that needs it, so that
`--help`, `validate` and `plan` answer at once.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., None]


def _config_options(command: Command) -> Command:
    for option in (
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override one setting: train.learning_rate=1e-5, datasets.0.max_samples=100.",
        ),
        click.option(
            "--config",
            "-c",
            "paths",
            multiple=True,
            required=True,
            type=click.Path(path_type=Path),
            help="Run config, YAML. Several are merged from left to right.",
        ),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aligntune-pipeline", prog_name="aligntune")
def app() -> None:
    """Post-training pipelines for language models: one YAML file, stages that are reused or
    resumed, Prefect and MLflow."""


@app.command()
@_config_options
def train(paths: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Run every stage in this process. The same command again resumes or reuses."""
    from aligntune.config.load import load
    from aligntune.direct import post_train

    post_train(load(paths, overrides), _command("train", paths, overrides))


@app.command()
@_config_options
def flow(paths: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Run every stage as a task of a Prefect flow."""
    from flows.post_train import run

    run(paths, overrides, _command("flow", paths, overrides))


@app.command()
@_config_options
def plan(paths: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Show what a run would do: which stages, reused or run, and why."""
    from aligntune.config.load import load
    from aligntune.plan import plan as make_plan
    from aligntune.show import show_plan

    show_plan(make_plan(load(paths, overrides)))


@app.command()
@_config_options
def validate(paths: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Check a config without running it."""
    from aligntune.config.load import load

    config = load(paths, overrides)
    click.echo(f"{', '.join(map(str, paths))}: ok ({config.algo}, {config.logging.run_name})")


def _command(verb: str, paths: tuple[Path, ...], overrides: tuple[str, ...]) -> str:
    import shlex

    parts = ["aligntune", verb]
    for path in paths:
        parts += ["--config", str(path)]
    for override in overrides:
        parts += ["--set", override]
    return shlex.join(parts)


def main() -> None:
    """Entry point: a mistake is one message and an exit code, a bug a file with its traceback."""
    from aligntune.errors import AlignTuneError

    try:
        app(standalone_mode=False)
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
        _fail(70, f"{type(error).__name__}: {error}; this is a bug, {_traceback()}")


def _fail(code: int, message: str) -> Any:
    click.echo(f"ERROR {code} {message}", err=True)
    sys.exit(code)


def _traceback() -> str:
    """Write the traceback of the current exception to a file and say where."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="aligntune-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exc(file=file)
    return f"its traceback is in {file.name}"
