"""`aligntune sync`. As in `cli`, a command imports what it needs."""

from __future__ import annotations

import os

import click

from aligntune.cli_config import json_option


@click.command()
@click.option("--output-dir", type=click.Path(), help="Where the runs wrote.")
@json_option
def sync(output_dir: str | None, as_json: bool) -> None:
    """Send MLflow what it missed while it was away, and end the runs that were killed."""
    import json
    from dataclasses import asdict
    from pathlib import Path

    from aligntune.config.logging import Logging
    from aligntune.errors import ConfigError, ServiceError
    from aligntune.paths import tracking_identity, tracking_uri

    where = output_dir or Logging.model_fields["output_dir"].default
    root = Path(os.path.expanduser(where)).absolute()
    if not root.is_dir():
        raise ConfigError(f"{root} is not a directory; name one that a run wrote to: --output-dir")
    from aligntune.courier import sync

    found = sync(tracking_uri(root), root, tracking_identity())
    lines = [f"{found.sent} runs sent to {found.store}, {found.going} still going on"]
    lines += [
        f"{count} runs wait for {store}; set MLFLOW_TRACKING_URI to it, and sync again"
        for store, count in found.elsewhere.items()
    ]
    click.echo(json.dumps(asdict(found), indent=2) if as_json else "\n".join(lines))
    if found.refused:
        raise ServiceError(
            f"MLflow answers but does not have {'; '.join(found.refused)}; fix what it says and "
            "sync again, or remove such a directory to leave it out"
        )
