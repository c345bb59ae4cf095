#!/bin/sh
# The servers of a team as processes of this machine, on loopback:
#     infra/local.sh up | down | status      all of them, or those that are named after it
#     eval "$(infra/local.sh env)"           what their clients have in the environment
#     infra/local.sh run COMMAND ...         the same for one command, and what backup.sh needs
# They live in $ALIGNTUNE_LOCAL and listen on eleven ports from $ALIGNTUNE_LOCAL_PORT (4200) on.
set -eu
here=$(dirname "$0")
python=${PYTHON:-$here/../.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" "$here/local.py" "$@"
