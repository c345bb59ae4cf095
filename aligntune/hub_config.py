"""A hub model's `config.json`, for an estimate of what its training needs."""

import time
from functools import partial
from pathlib import Path

from aligntune import hub
from aligntune.errors import AlignTuneError
from aligntune.interrupt import asked_to_stop, heeding

SECONDS = 5.0
"""That the hub has to give it."""
NAME = "config.json"


def config_of(repo_id: str, commit: str) -> Path | None:
    """The file in the hub cache, fetched where it is not there; None where the hub does not give it
    at once. Nothing is checked: good for an estimate, and for nothing else."""
    there = hub._cache(repo_id, "model") / "snapshots" / commit / NAME
    if there.is_file() or hub._offline():
        return there if there.is_file() else None
    get = partial(hub._api().hf_hub_download, repo_id, NAME, revision=commit)
    stopping, end = asked_to_stop(), time.monotonic() + SECONDS
    try:
        # The client tries again for longer than that by itself.
        with heeding(lambda: stopping() or time.monotonic() > end):
            return Path(hub.retrying(get, f"model {repo_id!r}"))
    except AlignTuneError:
        if stopping():
            raise
        return None
