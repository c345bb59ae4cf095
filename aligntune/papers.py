"""What goes with a model wherever it goes: a bill of materials and the digest of every file, signed
where there is a key; and how a registered model is held against them before it is promoted."""

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from aligntune.artifacts import Artifact, FileRecord, find_named, model_files, records, write_atomic
from aligntune.checksums import (
    SBOM,
    SIGNATURE,
    SIGNING_KEY,
    SUMS,
    TRUSTED_KEY,
    listed_digest,
    parse,
    trusted_key,
    vouched,
    write,
)
from aligntune.digest import sha256
from aligntune.errors import DataError
from aligntune.registered import paper
from aligntune.sbom import bill

LOG = logging.getLogger(__name__)

REWRITTEN = {"README.md", "adapter_config.json"}
"""What a push makes anew: the card, and on which hub model an adapter belongs."""


def enclose(
    policy: Artifact, parts: Sequence[str], folder: Path, shipped: Iterable[str]
) -> str | None:
    """Add the papers of the files that are `shipped` to `folder`, which holds them as they are in
    the first of these `parts` of `policy`, its model or its adapter, that has them; returns the id
    of the key that signed them.

    Raises:
        DataError: a file of the model is not as its stage made it.
        ConfigError: the key cannot be used.
    """
    wanted = set(shipped)
    files = {name: file for name, file in records(folder).items() if name in wanted}
    known = policy.manifest.files
    made: dict[str, FileRecord | None] = dict.fromkeys(files)
    for part in reversed(parts):
        made |= {name: known[f"{part}/{name}"] for name in files if f"{part}/{name}" in known}
    if wrong := [n for n in files if n not in REWRITTEN and made[n] != files[n]]:
        raise DataError(
            f"{policy.name}: {', '.join(wrong)} changed or appeared since the stage made it; "
            f"remove {policy.path} and run again"
        )
    own = {name: file for name, file in files.items() if made[name]}
    write_atomic(folder / SBOM, bill(policy, own))
    return write(folder, files | {SBOM: _record(folder / SBOM)})


@contextmanager
def papers(policy: Artifact) -> Iterator[Path]:
    """A directory with the papers of the artifact's `model/`, by the digests in its manifest."""
    files = model_files(policy)
    with tempfile.TemporaryDirectory(prefix="aligntune-") as place:
        folder = Path(place)
        write_atomic(folder / SBOM, bill(policy, files))
        write(folder, files | {SBOM: _record(folder / SBOM)})
        yield folder


def _record(path: Path) -> FileRecord:
    return FileRecord(sha256=sha256(path), size=path.stat().st_size)


def check_version(
    what: str, tags: Mapping[str, str], source: str, uri: str, stages: Path
) -> str | None:
    """Refuse a registered version that is not what was registered; returns the key that vouches
    for it. `tags` are (artifact, digest of its files).

    Its own stage is read again where it is among `stages`. Where a key is configured, that key has
    to have signed the list of its files.

    Raises:
        DataError: a file was changed, or nobody, or somebody else, signed.
        ServiceError: what is kept beside the model cannot be read.
    """
    name, digest = tags["artifact"], tags["digest"]
    if (stages / name).is_dir() and find_named(stages, name, verify=True) is None:
        raise DataError(
            f"{what}: {stages / name} is not as its stage made it; `aligntune verify "
            f"{stages / name}` names the files"
        )
    trusted = trusted_key()
    if trusted is None:
        LOG.info("%s: its digests hold, and no signature was asked for: neither %s nor %s is set",
                 what, TRUSTED_KEY, SIGNING_KEY)  # fmt: skip
        return None
    sums = paper(source, SUMS, uri)
    if sums is None:
        raise _unvouched(f"{what} was registered without {SUMS}")
    who = vouched(sums, paper(source, SIGNATURE, uri), trusted, what)
    if listed_digest(parse(sums, what)) != digest:
        raise DataError(f"{what}: {SUMS} lists other files than were registered; do not use it")
    return who


def refuse_unknown(what: str) -> None:
    """Raise DataError for a version that is none of ours where a key has to vouch for it."""
    if trusted_key() is not None:
        raise _unvouched(f"{what} was not registered by a run")


def _unvouched(why: str) -> DataError:
    asking = [name for name in (TRUSTED_KEY, SIGNING_KEY) if os.environ.get(name)]
    return DataError(
        f"{why}, so no key vouches for it; unset {' and '.join(asking)} to make it the champion "
        f"all the same, or train another with {SIGNING_KEY} set"
    )
