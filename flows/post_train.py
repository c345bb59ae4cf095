"""The pipeline as a Prefect flow: the stages that the command line runs, as named tasks.

    aligntune flow --config X [--set KEY=VALUE]
    python -m flows.post_train --config X [--set KEY=VALUE]

Prefect schedules and shows; what is finished is what the artifact directories say. So its own cache
is off, and a stage that was there already is a task in state `Cached`.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from inspect import isawaitable
from pathlib import Path
from types import FrameType

import httpx
from prefect import Task, flow, get_client, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.events.worker import EventsWorker
from prefect.exceptions import PrefectException
from prefect.logging.handlers import APILogHandler, APILogWorker
from prefect.states import Cancelled, Completed
from rich.console import Console

from aligntune.config.load import load
from aligntune.console import Safe, configure, screen, stage_progress
from aligntune.errors import AlignTuneError, Interrupted, ServiceError
from aligntune.interrupt import stop_on_signals
from aligntune.launch import execute_in_child, kill_children
from aligntune.models.precision import gpus
from aligntune.output import Calm
from aligntune.plan import Plan, Planned, Stage, plan
from aligntune.run import Done, execute
from aligntune.session import Session, opened
from aligntune.show import done_line, key_metrics, show_result
from aligntune.stages import KINDS
from aligntune.supervise import Limits
from flows.api import answering, failed
from flows.artifacts import record_run, record_stage
from flows.overlap import alone
from flows.progress import Shown, linked, showing
from flows.reported import reported, told
from flows.server import available
from flows.thread import in_thread
from flows.together import rounds

LOG = logging.getLogger("aligntune.flow")

RETRY_DELAYS = (2.0, 8.0, 32.0)
"""Seconds before each new attempt at a stage that talks to a network."""
LOOKS = (1.0, 2.0, 4.0)
"""Seconds before each new look for a Prefect server that does not answer at the start."""
LAST_WORDS = 10.0
"""Seconds that the last log lines and states may take to reach Prefect."""
LONGEST_LINE = 2_000
"""Characters of a child's output line that are passed on."""


def run(paths: Sequence[Path], overrides: Sequence[str], command: str) -> None:
    """Run the pipeline of a config as a flow, and print what came of it.

    Raises:
        AlignTuneError: a stage failed, was asked to stop, or there is no Prefect server.
    """
    config = load(paths, overrides)  # a mistake in it should not cost the start of a server
    given = ([str(path) for path in paths], list(overrides), command)
    served(partial(post_train, *given), config.logging.level)


def served(start: Callable[[], Awaitable[object]], level: str) -> None:
    """Run what `start` calls, a flow, in this process, with a Prefect server to talk to. Where that
    goes away later, the flow ends as it does with it.

    Raises:
        AlignTuneError: the flow's own, or there is no Prefect server.
    """
    configure(level, screen())
    mlflow = partial(import_module, "aligntune.track")  # takes a second; a server, several
    with _quiet(), _interrupted_at_once(), available(meanwhile=mlflow):
        asyncio.run(_run(start))


async def _run(start: Callable[[], Awaitable[object]]) -> None:
    async with _answering():
        try:
            with told():
                await start()
        finally:
            await _delivered()


async def _delivered() -> None:
    """Prefect sends logs and states in the background; a temporary server must get them all."""
    for sender in (EventsWorker, APILogWorker):
        sent = sender.drain_all(timeout=LAST_WORDS)
        if isawaitable(sent):
            await sent


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Prefect's API, looked for with patience; its failures come out as ours."""
    async with get_client() as client:
        await answering(client, LOOKS)
    try:
        yield
    except AlignTuneError:
        raise
    except (httpx.HTTPError, PrefectException) as error:
        raise failed(error, "finished stages are kept, the same command continues") from error


def run_name() -> str:
    """The flow run's name: `logging.run_name`."""
    parameters = runtime.flow_run.parameters
    try:
        config = load([Path(path) for path in parameters["configs"]], parameters["overrides"])
    except AlignTuneError:
        return "post-train"  # the flow itself is about to fail with the same error
    return str(config.logging.run_name)


@dataclass
class Running:
    """A flow run that is going on."""

    session: Session
    stopping: Callable[[], bool]
    states: dict[str, State[Done]] = field(default_factory=dict)
    """By artifact: the finished tasks, which later tasks name as what they waited for."""


@flow(name="post-train", flow_run_name=run_name, persist_result=False)
@reported
@alone
async def post_train(
    configs: list[str], overrides: Sequence[str] = (), command: str = ""
) -> State[None] | None:
    """Post-training of a language model: data, SFT, preference training, evaluation, registry.

    Args:
        configs: Paths of YAML files, merged from left to right.
        overrides: Settings that come after them, `key=value`.
        command: What makes this run again, for the report.
    """
    config = load([Path(path) for path in configs], overrides)
    planned = plan(config)
    try:
        with running(planned, command) as going:
            await run_stages(planned.stages, going)
            await record_run(going.session)
    except Interrupted as error:
        return Cancelled(name="Interrupted", message=str(error), data=error)
    show_result(screen(), going.session)
    return None


@contextmanager
def running(planned: Plan, command: str) -> Iterator[Running]:
    """A flow run's session, whose log is Prefect's, and which someone may ask to stop."""
    level = planned.config.logging.level
    with (
        logged(level),
        # Also where a deployment's runner cancels: what Prefect's own handler raises may come out
        # inside of a callback of the event loop, which loses it.
        stop_on_signals(at_once=kill_children) as stopping,
        opened(planned, command, _flow_run()) as session,
    ):
        yield Running(session, stopping)


def _flow_run() -> dict[str, str]:
    """What leads from MLflow's run to Prefect's."""
    found = {"id": runtime.flow_run.id, "url": runtime.flow_run.ui_url}
    return {f"aligntune.flow_run_{name}": value for name, value in found.items() if value}


async def run_stages(stages: Sequence[Planned], going: Running) -> None:
    """Stages of the session's plan as tasks, each after its inputs.

    Raises:
        AlignTuneError: as the first that failed did, after its retries.
    """
    async with linked(going.session):
        for together in rounds(stages, going.session.plan.config.launch, gpus()):
            await _as_tasks(together, going)


async def _as_tasks(entries: Sequence[tuple[Planned, Mapping[str, str]]], going: Running) -> None:
    """Stages at the same time. One that fails stops no other, which would have to start again."""
    if len(entries) == 1:
        return await _as_task(*entries[0], going)
    work = (_as_task(entry, environment, going) for entry, environment in entries)
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if outcome is not None:
            raise outcome
    return None


async def _as_task(entry: Planned, environment: Mapping[str, str], going: Running) -> None:
    """One stage as a task that waits for the tasks of its inputs.

    Raises:
        AlignTuneError: as the stage did, after its retries.
    """
    stage, failed = entry.stage, []

    async def body() -> State[Done]:
        try:
            return await _stage(entry, environment, going)
        except Interrupted as error:
            failed.append(error)
            return Cancelled(name="Interrupted", message=str(error))

    named = task(
        name=stage.label,
        description=f"{stage.kind} stage",
        task_run_name=stage_run_name(stage),
        retries=len(RETRY_DELAYS) if KINDS[stage.kind].network else 0,
        retry_delay_seconds=list(RETRY_DELAYS),
        retry_condition_fn=may_pass,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    inputs = [going.states[name] for name in stage.inputs.values() if name in going.states]
    state = await named(body)(wait_for=inputs)
    if failed:
        raise failed[0]
    going.states[stage.name] = state


def stage_run_name(stage: Stage) -> str:
    """The task run's name: `sft [1a2b3c4d5e6f]`."""
    return f"{stage.label} [{stage.key}]"


def may_pass(_: Task[..., object], attempt: TaskRun, state: State[object]) -> bool:
    """Whether a failure may pass by itself: only a server's does."""
    error = state.data
    if not isinstance(error, ServiceError):
        return False
    LOG.warning("%s; trying again", error)
    return True


async def _stage(entry: Planned, environment: Mapping[str, str], going: Running) -> State[Done]:
    """The state of a finished stage: `Cached` if it was there already."""
    stage, session = entry.stage, going.session
    async with showing(session, stage.label) as shown:
        work = partial(_work, stage, session, environment, shown)
        done = await in_thread(work, going.stopping)
    session.add(done)
    artifact = session.artifact(done.label)
    LOG.info("%s", done_line(done, artifact).plain)
    await record_stage(session, done)
    name, why = ("Cached", entry.why) if done.reused else ("Completed", key_metrics(artifact))
    return Completed(name=name, message=f"{done.artifact}  {why}", data=done)


def _work(
    stage: Stage,
    session: Session,
    environment: Mapping[str, str],
    shown: Shown,
    stopping: Callable[[], bool],
) -> Done:
    context, launch = session.context, session.plan.config.launch
    if not KINDS[stage.kind].trains:
        with stage_progress(Console(force_terminal=False), stage.label) as show:

            def told(done: int, total: int, values: Mapping[str, float]) -> None:
                shown(done, total, values)
                show(done, total, values)

            return execute(stage, context, told, stopping)
    say, limits = Calm(_say, context.log(stage.label)), Limits.of(launch)
    try:
        return execute_in_child(stage, context, say, stopping, environment, limits, shown)
    finally:
        say.close()


def _say(line: str) -> None:
    LOG.info("%s", line[:LONGEST_LINE])


@contextmanager
def logged(level: str) -> Iterator[None]:
    """Our log lines, and with them a child's, are the flow's and its tasks' logs in Prefect."""
    ours, handler = logging.getLogger("aligntune"), APILogHandler()
    ours.setLevel(level)
    handler.addFilter(Safe())
    ours.addHandler(handler)
    try:
        yield
    finally:
        ours.removeHandler(handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Prefect's account of every task goes to its server; the terminal shows ours. That Prefect is
    away is said by us, in one line instead of one with all of it for each thing that it missed."""
    unsent = logging.getLogger("prefect._internal.concurrency")
    unsent.addFilter(_no_item)
    loggers = [logging.getLogger(f"prefect.{name}") for name in ("flow_runs", "task_runs")]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.propagate = False
    try:
        yield
    finally:
        unsent.removeFilter(_no_item)
        for logger, propagate in zip(loggers, before, strict=True):
            logger.propagate = propagate


def _no_item(line: logging.LogRecord) -> bool:
    return not any(what in str(line.msg) for what in ("failed to process item", "pending items"))


@contextmanager
def _interrupted_at_once() -> Iterator[None]:
    """A SIGTERM or Ctrl-C before or after the flow's stages raises KeyboardInterrupt, so that a
    server is stopped. The event loop's own handler would wait for a plan, which waits for the hub.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    import sys

    from aligntune.cli import main

    sys.argv.insert(1, "flow")
    main()
