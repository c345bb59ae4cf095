"""What the files of a model directory have to be, and who says so.

    SHA256SUMS        the digest of every other file; `sha256sum -c SHA256SUMS` checks it without us
    SHA256SUMS.sig    the Ed25519 signature of that, 64 bytes, where whoever made it has a key

A key is a PEM file that an environment variable names, as OpenSSL makes it:

    openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out pub.pem
"""

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from aligntune.artifacts import MANIFEST, FileRecord, Manifest, fsync, listing, write_atomic
from aligntune.digest import sha256
from aligntune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

LOG = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
SBOM = "sbom.cdx.json"
PAPERS = (SUMS, SIGNATURE, SBOM)
"""Files about a model, which are no part of it."""
SIGNING_KEY = "ALIGNTUNE_SIGNING_KEY"
TRUSTED_KEY = "ALIGNTUNE_TRUSTED_KEY"
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^\\\n]+)")


@dataclass(frozen=True)
class Checked:
    """How a directory differs from what it should be."""

    changed: tuple[str, ...]
    missing: tuple[str, ...]
    unlisted: tuple[str, ...]
    """There, but in no list. Hidden files do not count."""
    files: int
    """How many are listed."""
    source: str
    """The list: `SHA256SUMS`, or a stage's `manifest.json`."""
    signer: str | None
    """The key that signed the list; None if nobody did, or nobody's key was given."""

    @property
    def problems(self) -> list[str]:
        found = {"changed": self.changed, "missing": self.missing, "not listed": self.unlisted}
        return [f"{name} {what}" for what, names in found.items() for name in names]


def write(folder: Path, files: Mapping[str, FileRecord]) -> str | None:
    """Put the list of `files`, and its signature where there is a key, into `folder`; returns the
    id of that key.

    Raises:
        ConfigError: what ALIGNTUNE_SIGNING_KEY names is no such key.
    """
    for name in files:
        if _LINE.fullmatch(f"{'0' * 64}  {name}") is None:
            raise DataError(f"{name!r} cannot be a name in {SUMS}; rename the file")
    key = signing_key()
    text = listing(files)
    write_atomic(folder / SUMS, text)
    (folder / SIGNATURE).unlink(missing_ok=True)
    if key is None:
        LOG.info("%s of %s is not signed: %s names no key", SUMS, folder.name, SIGNING_KEY)
        return None
    (folder / SIGNATURE).write_bytes(key.sign(text.encode()))
    fsync(folder / SIGNATURE)
    return key_id(key.public_key())


def check(folder: Path, key: "Ed25519PublicKey | None") -> Checked:
    """`folder` against its list: `SHA256SUMS` in it, or the manifest of the stage that made it.

    Raises:
        DataError: there is no list, or `key` did not sign it.
    """
    if (folder / SUMS).is_file():
        text = (folder / SUMS).read_bytes()
        expected, source = parse(text, str(folder / SUMS)), SUMS
        signature = folder / SIGNATURE
        signer = vouched(text, signature.read_bytes() if signature.is_file() else None, key, folder)
    else:
        expected, source = _of_stage(folder), MANIFEST
        signer = vouched(b"", None, key, folder)
    there = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _hidden(path.relative_to(folder))
    }
    extra = there.keys() - expected.keys() - {SUMS, SIGNATURE, MANIFEST}
    missing = expected.keys() - there.keys()
    changed = [n for n in sorted(expected.keys() - missing) if sha256(there[n]) != expected[n]]
    return Checked(
        tuple(changed), tuple(sorted(missing)), tuple(sorted(extra)), len(expected), source, signer
    )


def vouched(
    text: bytes, signature: bytes | None, key: "Ed25519PublicKey | None", where: object
) -> str | None:
    """The id of `key`, which signed `text`; None without a key.

    Raises:
        DataError: it did not.
    """
    if key is None:
        return None
    from cryptography.exceptions import InvalidSignature

    who = key_id(key)
    if signature is None:
        raise DataError(
            f"{where} is not signed, and key {who} should have; get it from who has that key, or "
            f"check it without one"
        )
    try:
        key.verify(signature, text)
    except InvalidSignature:
        raise DataError(
            f"{where}: {SIGNATURE} is not the signature of key {who} under {SUMS}; do not use it"
        ) from None
    return who


def parse(text: bytes, where: str) -> dict[str, str]:
    """Name -> sha256 of a list. DataError for lines and names that a list of ours cannot have."""
    found: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        match = _LINE.fullmatch(line)
        name = PurePosixPath(match[2]) if match else PurePosixPath("/")
        if match is None or name.is_absolute() or ".." in name.parts:
            raise DataError(f"{where}: {line[:100]!r} names no file below it; do not use it")
        found[match[2]] = match[1]
    return found


def unwrapped(folder: Path, where: str) -> None:
    """Check a model that came with its papers, if it did, and take them away.

    Raises:
        DataError: a file is not as listed.
    """
    if (folder / SUMS).is_file():
        if problems := check(folder, None).problems:
            raise DataError(
                f"{where}: {', '.join(problems)}; its files were changed, do not use it"
            )
        for name in PAPERS:
            (folder / name).unlink(missing_ok=True)


def listed_digest(sums: Mapping[str, str]) -> str:
    """What `artifacts.digest_of` gives for the files of a list but the papers."""
    lines = (f"{sums[name]}  {name}\n" for name in sorted(sums) if name not in PAPERS)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def signing_key() -> "Ed25519PrivateKey | None":
    """What `ALIGNTUNE_SIGNING_KEY` names. ConfigError if that is no Ed25519 key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not (name := os.environ.get(SIGNING_KEY)):
        return None
    text = _read(name, SIGNING_KEY)
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError):  # the latter for one with a password
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{SIGNING_KEY}: {name} holds no private Ed25519 key without a password; make one with "
            "`openssl genpkey -algorithm ed25519`"
        )
    return key


def trusted_key(name: str | None = None) -> "Ed25519PublicKey | None":
    """The public key that signatures have to be of: in the file `name`, else the one that
    `ALIGNTUNE_TRUSTED_KEY` names, else the other half of the signing key.

    Raises:
        ConfigError: that is no Ed25519 key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    what = TRUSTED_KEY if name is None else "--key"
    if not (name := name or os.environ.get(TRUSTED_KEY)):
        own = signing_key()
        return own.public_key() if own else None
    try:
        key = load_pem_public_key(_read(name, what))
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(
            f"{what}: {name} holds no public Ed25519 key; make it from the private one with "
            "`openssl pkey -in key.pem -pubout`"
        )
    return key


def key_id(key: "Ed25519PublicKey") -> str:
    """The first 16 hex digits of the sha256 of the key's 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _read(name: str, what: str) -> bytes:
    try:
        return Path(os.path.expanduser(name)).read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError(f"{what}: {name} cannot be read: {reason}") from None


def _of_stage(folder: Path) -> dict[str, str]:
    """Name -> sha256 from the manifest in a stage's directory, or in the one above."""
    inner = folder.resolve()
    for place, start in ((inner, ""), (inner.parent, f"{inner.name}/")):
        try:
            files = Manifest.model_validate_json((place / MANIFEST).read_bytes()).files
        except (OSError, ValidationError):
            continue
        return {n.removeprefix(start): f.sha256 for n, f in files.items() if n.startswith(start)}
    raise DataError(
        f"{folder} has neither {SUMS} nor a stage's {MANIFEST}, so there is nothing to check it "
        "against; name the directory of a model, or of a stage"
    )


def _hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)
