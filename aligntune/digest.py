"""What identifies the content of a file."""

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """The digest as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
