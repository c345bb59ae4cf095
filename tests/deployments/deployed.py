"""What tests of deployments ask a Prefect server, and how they start and end what runs them."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from waits import until

from aligntune.check import check

DEPLOYED = """
deployment:
  flow: post-train
  tags: [one]
  triggers:
    - {event: data.published, resource: dataset.pairs, set: {seed: "{{ event.payload.seed }}"}}
    - {event: asked}
schedules:
  - {cron: 0 3 * * *, timezone: Europe/Berlin, slug: night}
  - {interval: 86400, slug: daily, set: {train.max_steps: 3}}
  - {rrule: "FREQ=WEEKLY;BYDAY=MO", slug: weekly}
"""
PATIENCE = 400
"""Seconds that a run may take to get somewhere on a busy machine."""


def deployed(path, *overrides):
    """What `aligntune deploy` made of a config, and its warnings."""
    from flows.deploy import deploy

    return asyncio.run(deploy(check([path], overrides).loaded, [path], overrides))


def ask(question):
    """What the server says."""
    from prefect import get_client

    async def answer():
        async with get_client() as client:
            return await question(client)

    return asyncio.run(answer())


def runs_of(deployment):
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    return ask(
        lambda client: client.read_flow_runs(deployment_filter=only, sort="EXPECTED_START_TIME_ASC")
    )


def states_of(deployment):
    return [run.state.name for run in runs_of(deployment)]


def automations_of(deployment):
    found = ask(lambda c: c.read_resource_related_automations(f"prefect.deployment.{deployment}"))
    return {each.name: each.id for each in found}


COMMAND = (
    "from flows.deploy import ENTRYPOINTS; ENTRYPOINTS['nap'] = 'napping.nap'\n"
    "from aligntune.cli import main; main()"
)
"""The command line, for which the flow of tests is one of ours."""


def command(*arguments):
    """(exit code, output) of a command of its own."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout + done.stderr


def kill(process):
    """-9 for a serving process and the runs that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def trigger(done, *overrides):
    from flows.deployments import trigger

    return asyncio.run(trigger(done.name.partition("/")[2], overrides))[0]


def state_of(run):
    return ask(lambda client: client.read_flow_run(run.id)).state


def wait_for(run, *names):
    until(lambda: state_of(run).name in names, f"{names}", PATIENCE)
    return state_of(run)


def held(done):
    """The record of who has the deployment's lock, once somebody has."""
    path = ask(lambda client: client.read_deployment(done.id)).parameters["configs"][0]
    folder = Path(path).parent / "out" / ".locks"
    record = folder / f"{done.id}.json"
    until(record.exists, "the lock", PATIENCE)
    return record
