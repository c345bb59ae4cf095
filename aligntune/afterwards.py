"""MLflow told by a process that goes on when its command has ended."""

import logging
import os
import subprocess
import sys
from pathlib import Path

from aligntune.outbox import Outbox

LOG = logging.getLogger(__name__)

LOGGED = "sync.log"
"""In the outbox: what that process had to say the last time."""
INIT = 1
"""The process that a container, or a service, lives as long as."""


def survives() -> bool:
    """Whether a process that this one starts can go on after it: not where the end of this one is
    the end of its container or service."""
    return INIT not in (os.getpid(), os.getppid())


def tell(root: Path) -> None:
    """Start `aligntune sync` for the output directory `root`. What it cannot send stays in the
    outbox, and the next command that has to do with MLflow sends it."""
    outbox = Outbox(root)
    if outbox.away.exists():
        LOG.warning(
            "MLflow did not answer the last time (%s); what it missed is kept, `aligntune sync "
            "--output-dir %s` sends it", outbox.folder / LOGGED, root,
        )  # fmt: skip
    # -P: files of the working directory are no modules of ours.
    command = [sys.executable, "-P", "-m", "aligntune", "sync", "--output-dir", str(root)]
    try:
        with (outbox.folder / LOGGED).open("wb") as log:
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:  # the run is done, whether MLflow knows it or not
        LOG.warning(
            "MLflow was not told: %s; `aligntune sync --output-dir %s` tells it", error, root
        )
