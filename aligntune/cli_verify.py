"""`aligntune verify`. As in `cli`, a command imports what it needs."""

from __future__ import annotations

import os

import click


@click.command()
@click.argument("path", type=click.Path())
@click.option("--key", type=click.Path(), help="The public key, PEM, that has to have signed it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and no text.")
def verify(path: str, key: str | None, as_json: bool) -> None:
    """Read every file of a model's directory again, and name those that are not as listed in its
    SHA256SUMS, or by the stage that made it. ALIGNTUNE_TRUSTED_KEY can name the key too."""
    import json
    from dataclasses import asdict
    from pathlib import Path

    from aligntune.checksums import check, trusted_key
    from aligntune.errors import ConfigError, DataError

    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        raise ConfigError(f"{path} is not a directory; name one that holds a model")
    found = check(folder, trusted_key(key))
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    if found.problems:
        raise DataError(
            f"{path} is not what {found.source} lists:\n  " + "\n  ".join(found.problems)
        )
    if not as_json:
        by = f"signed by key {found.signer}" if found.signer else "no signature was checked"
        click.echo(f"{path}: {found.files} files as listed in {found.source}, {by}")
