"""One stage in a process of its own: `python -m aligntune.worker SPEC RESULT`.

SPEC is what `run.to_json` wrote. RESULT gets the finished stage, or the error, as JSON; the exit
code is the error's.
"""

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from aligntune.artifacts import write_atomic
from aligntune.console import configure, stage_progress
from aligntune.errors import AlignTuneError, Interrupted
from aligntune.interrupt import stop_on_signals, stop_with
from aligntune.launch import LOG_LEVEL
from aligntune.run import execute, from_json


def main(spec: Path, result: Path, parent: int) -> int:
    stop_with(parent)
    console = Console(file=sys.stdout, force_terminal=False, width=200)
    configure(os.environ.get(LOG_LEVEL, "INFO"), console)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(None)  # who reads our lines adds the time
    stage, context = from_json(spec.read_text(encoding="utf-8"))
    try:
        with stop_on_signals() as stopping, stage_progress(console, stage.label) as show:
            done = execute(stage, context, show, stopping)
    except AlignTuneError as error:
        return _failed(result, error)
    except KeyboardInterrupt:
        again = "the same command continues from the last checkpoint"
        return _failed(result, Interrupted(f"{stage.label}: stopped at once; {again}"))
    write_atomic(result, json.dumps({"done": asdict(done)}))
    return 0


def _failed(result: Path, error: AlignTuneError) -> int:
    record = {"error": type(error).__name__, "message": str(error)}
    write_atomic(result, json.dumps(record))
    return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
