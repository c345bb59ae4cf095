"""`${NAME}` and `${NAME:-default}` in values, from the environment.

A value is filled in after the file is parsed, so it is one text or number whatever it holds. What
a variable holds may be a secret: no message here shows it.
"""

import os
import re

from aligntune.config.naming import short
from aligntune.config.scalar import Scalar, plain
from aligntune.config.script import forbidden
from aligntune.config.secrets import ADVICE, names_secret

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-((?:(?!\$\{).)*))?", re.DOTALL)


def refers(text: str) -> bool:
    """Whether `text` holds a reference and not only an escaped `$${`."""
    return any(found["inside"] is not None for found in _REFERENCE.finditer(text))


def filled(text: str, *, quoted: bool, room: int) -> Scalar:
    """`text` with its references replaced; as in a shell, an empty variable takes the default.

    Unquoted text that is one reference and nothing else has the type that the variable's text
    would have in its place. ValueError for an unset variable, a malformed reference, a character
    or number that no config can hold, and for more than `room` characters.
    """
    parts, end = [], 0
    for found in _REFERENCE.finditer(text):
        part = "${" if found["inside"] is None else _value(found)
        room -= len(part)
        if room < 0:
            raise ValueError("the variables hold more than 1 MiB of text; use shorter ones")
        parts += [text[end : found.start()], part]
        end = found.end()
    whole = "".join([*parts, text[end:]])
    if quoted or not _REFERENCE.fullmatch(text):
        return whole
    try:
        return plain(whole.strip())
    except ValueError:
        raise ValueError(
            f"{short(text)} is a number that is not finite or does not fit 64 bits; "
            "set another, or put the reference in quotes as text"
        ) from None


def escaped(text: str) -> str:
    """What reads as `text` where references are filled in."""
    return text.replace("${", "$${")


def _value(found: re.Match[str]) -> str:
    parts = _INSIDE.fullmatch(found["inside"])
    if parts is None or not found["end"]:
        raise ValueError(
            f"{short(found[0])} is neither ${{NAME}} nor ${{NAME:-default}}; "
            "write $${ for a plain ${"
        )
    name, default = parts.groups()
    if names_secret(name):
        raise ValueError(f"the variable {name} is called like a secret; {ADVICE}")
    value = os.environ.get(name)
    if default is not None:
        value = value or default
    if value is None:
        raise ValueError(
            f"the variable {name} is not set; set it, or write ${{{name}:-default}} here"
        )
    if forbidden(value):
        raise ValueError(
            f"the variable {name} holds a character that is not allowed; set it to plain text"
        )
    return value
