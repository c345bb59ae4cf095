"""The pipeline in this process, with a terminal to watch: no Prefect, nothing to start."""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Console

from aligntune.config.run import RunConfig
from aligntune.console import configure, screen, stage_progress
from aligntune.interrupt import stop_on_signals
from aligntune.launch import execute_in_child, kill_children
from aligntune.plan import Stage, plan
from aligntune.run import Done, execute
from aligntune.session import Session, opened, preparing
from aligntune.show import done_line, result_record, show_result
from aligntune.stages import KINDS
from aligntune.supervise import Limits

LOG = logging.getLogger("aligntune.direct")


def post_train(
    config: RunConfig, command: str, *, as_json: bool = False, afterwards: bool = False
) -> None:
    """Run every stage of `config` that does not exist yet, and print what came of it.

    With `afterwards` MLflow may be told of a run that reuses everything when this has returned.
    With `as_json` the result is JSON on standard output, and everything else goes to the other.

    Raises:
        AlignTuneError: a stage failed or was asked to stop; finished stages are kept.
    """
    console = screen(stderr=as_json)
    configure(config.logging.level, console)
    with stop_on_signals(at_once=kill_children) as stopping:
        planned = plan(config)
        with opened(planned, command, afterwards=afterwards) as session:
            run_stages(config, console, session, stopping)
    if as_json:
        sys.stdout.write(json.dumps(result_record(session), indent=2) + "\n")
    else:
        show_result(console, session)


def run_stages(
    config: RunConfig, console: Console, session: Session, stopping: Callable[[], bool]
) -> None:
    """Run or reuse every stage of the session's plan, and say so."""
    for entry in session.plan.stages:
        with stage_progress(console, entry.stage.label) as show:
            if _separate(config, entry.stage):
                done = execute_in_child(
                    entry.stage,
                    session.context,
                    LOG.info,
                    stopping,
                    limits=Limits.of(config.launch),
                    progress=show if console.is_terminal else None,  # else its lines say it
                )
            else:
                done = execute(entry.stage, session.context, show, stopping)
        session.add(done)
        _say(console, session, done)


def prepare_data(
    config: RunConfig, command: str, *, samples: int = 2, as_json: bool = False
) -> None:
    """Run the data stages of `config` and what they read, and print their reports, with so many
    samples of each source.

    The artifacts are those that a run would make, so a run reuses them.

    Raises:
        AlignTuneError: a stage failed or was asked to stop; finished stages are kept.
    """
    from aligntune.data.report import read
    from aligntune.show_data import show

    console = screen(stderr=as_json)
    configure(config.logging.level, console)
    wanted = plan(config, only="data")
    with stop_on_signals() as stopping, preparing(wanted, command) as session:
        run_stages(config, console, session, stopping)
    made = [entry.stage.label for entry in wanted.stages if entry.stage.kind == "data"]
    folders = {label: session.artifact(label).path for label in made}
    if as_json:
        found = {label: asdict(read(folder)) for label, folder in folders.items()}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for label, folder in folders.items():
        console.print()
        show(read(folder), folder, label, console, samples)


def _separate(config: RunConfig, stage: Stage) -> bool:
    return (config.launch.apart or _runs_own_code(stage)) and KINDS[stage.kind].trains


def _runs_own_code(stage: Stage) -> bool:
    """Whether it calls rewards of the user's own, which may end their process."""
    rewards = (*getattr(stage.config, "rewards", ()), *getattr(stage.config, "shown_rewards", ()))
    return any(":" in reward.reward_type for reward in rewards)


def _say(console: Console, session: Session, done: Done) -> None:
    line = done_line(done, session.artifact(done.label))
    if console.is_terminal:
        console.print(line, highlight=False)
    else:
        LOG.info("%s", line.plain)
