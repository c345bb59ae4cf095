"""Work pools: whether the one that a config names can run it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonschema import ValidationError
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import WorkPool, WorkQueue
from prefect.exceptions import ObjectNotFound

from aligntune.config.schedule import Deployment
from aligntune.errors import ConfigError
from aligntune.models.precision import has_gpu

PROCESS = "process"
"""The type of pool whose jobs are processes beside their worker."""


async def about_pool(
    client: PrefectClient, chosen: Deployment
) -> tuple[Mapping[str, Any], list[str]]:
    """The job variables of a deployment, and warnings about its pool.

    Raises:
        ConfigError: there is no such pool or queue.
    """
    if chosen.pool is None:
        return {}, []
    pool = await _pool(client, chosen.pool)
    if chosen.approval_pool:
        await _pool(client, chosen.approval_pool)
    limit = pool.concurrency_limit
    if chosen.queue:
        queue = await _queue(client, pool.name, chosen.queue)
        limit = limit if queue.concurrency_limit is None else queue.concurrency_limit
    variables = dict(chosen.job_variables)
    if pool.type == PROCESS:
        # Paths in a config are relative to the directory of the command.
        variables.setdefault("working_dir", str(Path.cwd()))
    _check(variables, pool)
    if limit is None and _uses_gpus(pool, chosen):
        return variables, [
            f"work pool {pool.name} has no concurrency limit, so runs may share its GPUs; bound "
            f"them with `prefect work-pool set-concurrency-limit {pool.name} 1`"
        ]
    return variables, []


async def _pool(client: PrefectClient, name: str) -> WorkPool:
    try:
        return await client.read_work_pool(name)
    except ObjectNotFound:
        raise ConfigError(
            f"there is no work pool {name!r}; create it with `prefect work-pool create {name} "
            f"--type {PROCESS}`, or another type"
        ) from None


def _check(variables: Mapping[str, Any], pool: WorkPool) -> None:
    try:
        DeploymentUpdate(job_variables=dict(variables)).check_valid_configuration(
            pool.base_job_template
        )
    except ValidationError as error:
        place = error.json_path.replace("$", "deployment.job_variables", 1)
        raise ConfigError(
            f"{place}: {error.message[:300]}; `prefect work-pool inspect {pool.name}` shows what "
            "its jobs take"
        ) from None


async def _queue(client: PrefectClient, pool: str, name: str) -> WorkQueue:
    # To ask for one by its name would make it.
    for queue in await client.read_work_queues(work_pool_name=pool):
        if queue.name == name:
            return queue
    raise ConfigError(
        f"work pool {pool!r} has no queue {name!r}; create it with `prefect work-queue create "
        f"{name} --pool {pool}`"
    )


def _uses_gpus(pool: WorkPool, chosen: Deployment) -> bool:
    """Whether its jobs look as if they did: by its name, its jobs, or this machine."""
    said = f"{pool.name} {chosen.queue} {chosen.job_variables}".lower()
    return "gpu" in said.replace("_", " ") or (pool.type == PROCESS and has_gpu())
