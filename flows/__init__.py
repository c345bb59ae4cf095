"""Prefect around the pipeline: the same stages as tasks. The only package that imports it.

What is set here must be there before Prefect is imported; a variable that is set already wins.
"""

import os

DEFAULTS = {
    # A new database on a busy machine was seen to take longer than Prefect's own 20 seconds.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Threads of ours log outside of any run, which is not worth a warning each time.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}

for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
