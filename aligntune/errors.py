"""Every error the library raises on purpose, and what each means to whoever started the run.

    AlignTuneError        70
    ├── ConfigError       78   a setting is wrong: fix the config
    ├── DataError         65   a row, a file or a split is wrong: fix the data
    ├── Diverged          79   training cannot go on: change hyper-parameters
    ├── ServiceError      69   a server stayed away through all retries: run again later
    ├── ResourceError     74   disk, memory or permissions: make room, then run again
    └── Interrupted       75   stopped from outside with a good checkpoint: run again to resume

A message says what is wrong, where, and what to do, in that order and in one or two sentences.
The numbers are exit codes (sysexits.h); schedulers read from them whether a retry can help.
"""

import errno
import re
from collections.abc import Iterable

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS})
"""What the system says where a disk is full or may not be written."""
_FULL = re.compile(rf"\(os error ({errno.ENOSPC}|{errno.EDQUOT})\)|unexpected pos \d+ vs \d+")
"""What Rust's libraries (safetensors, tokenizers) and torch's writer make of it."""


def no_room(error: BaseException) -> bool:
    """Whether a disk was full or may not be written."""
    if not isinstance(error, OSError):
        return bool(_FULL.search(str(error)))
    told = re.search(r"\[Errno (\d+)\]", reason(error)) if error.errno is None else None
    return (int(told[1]) if told else error.errno) in _NO_ROOM


def reason(error: BaseException) -> str:
    """What the system said; of `copytree`, which lists it as text for each file, of the first."""
    files = error.args[0] if isinstance(error, OSError) and error.args else None
    return str(files[0][-1]) if isinstance(files, list) and files else str(error)


class AlignTuneError(Exception):
    """Base of everything below, so that a caller can catch ours and nothing else. What a server's
    client says of it may have its password in it, so that no message of ours has one in a URL."""

    exit_code = 70

    def __init__(self, message: str = "") -> None:
        super().__init__(public(message))


class ConfigError(AlignTuneError, ValueError):
    """A setting is missing, unknown, out of range, or contradicts another."""

    exit_code = 78


class DataError(AlignTuneError, ValueError):
    """A row, a file or a split is not what the config says it is, or nothing is left of it."""

    exit_code = 65


class Diverged(AlignTuneError, RuntimeError):
    """A loss or gradient is not finite, or no step was taken: there is nothing to go on with."""

    exit_code = 79


class ServiceError(AlignTuneError, ConnectionError):
    """The hub or another server failed after its whole retry budget."""

    exit_code = 69


class ResourceError(AlignTuneError, OSError):
    """Disk, memory or permissions were not enough."""

    exit_code = 74


class Interrupted(AlignTuneError):
    """Stopped from outside after a checkpoint was saved; the same command resumes."""

    exit_code = 75


def public(text: str) -> str:
    """`text` without the user names and passwords of the URLs in it."""
    return re.sub(r"(\b[a-z][a-z0-9+.-]*://)[^/\s'\"<>]*@", r"\1", text, flags=re.IGNORECASE)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is in none of our tables."""
    from difflib import get_close_matches

    known = sorted(known)
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
    return f"unknown {kind} {name!r}; {hint}"
