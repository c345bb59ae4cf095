"""A flow of tasks that do nothing, with a temporary server: Prefect's own time.

PYTHONPATH=tests python -m benchmarks.empty_flow TASKS
"""

import sys
from functools import partial

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.post_train import served


@task(cache_policy=NO_CACHE, persist_result=False)
async def nothing() -> None:
    pass


@flow(persist_result=False)
async def empty(tasks: int) -> None:
    for _ in range(tasks):
        await nothing()


if __name__ == "__main__":
    served(partial(empty, int(sys.argv[1])), "WARNING")
