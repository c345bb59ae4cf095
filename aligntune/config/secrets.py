"""Secrets have no place in a config: what it holds is written to the run's directory, to MLflow, to
reports and cards. They are read from the environment by the libraries that need them."""

import re
from collections.abc import Iterator
from typing import Any

from aligntune.config.naming import KeyPath

_NAME = re.compile(
    r"(?:^|_)(?:TOKEN|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|API_?KEY|ACCESS_?KEY"
    r"|PRIVATE_?KEY|AUTH|PAT)(?:_|$)",
    re.IGNORECASE,
)
_SHAPES = {
    "a token of the Hugging Face hub": r"\bhf_[A-Za-z0-9]{30,}",
    "an API key": r"\bsk-[A-Za-z0-9_-]{20,}|\bAIza[\w-]{35}",
    "an AWS access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a token of GitHub or GitLab": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22}"
    r"|glpat-[\w-]{20})",
    "a token of Slack": r"\bxox[abeprs]-[\w-]{10}|hooks\.slack\.com/services/T\w+/B\w+/\w+",
    "a key of Prefect": r"\bpn[ub]_[A-Za-z0-9]{30}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password": r"\b[a-z][a-z0-9+.-]*://[^\s/@:]*:[^\s/@]+@",
    "a signature": r"(?i)[?&](?:x-amz-signature|x-goog-signature|sig|signature|token|access_token"
    r"|api_?key|password)=[^&\s]",
}
_SHAPED = {what: re.compile(pattern) for what, pattern in _SHAPES.items()}
ADVICE = (
    "what a config holds is written to disk, MLflow and reports; leave it out, and set what the "
    "library that needs it reads from the environment (HF_TOKEN, AWS_*, NETRC, ...)"
)


def names_secret(variable: str) -> bool:
    """Whether an environment variable is called like one that holds a secret: `HF_TOKEN`."""
    return _NAME.search(variable) is not None


def secret_problems(values: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Texts in a config, keys among them, that look like a secret: (place, message). The message
    does not show it."""
    if isinstance(values, dict):
        for key, value in values.items():
            if isinstance(key, str) and _looks_like(key):
                yield path, f"a key in here holds {_looks_like(key)}; {ADVICE}"
            else:
                yield from secret_problems(value, (*path, key))
    elif isinstance(values, list):
        for index, value in enumerate(values):
            yield from secret_problems(value, (*path, index))
    elif isinstance(values, str) and (what := _looks_like(values)):
        yield path, f"this holds {what}; {ADVICE}"


def _looks_like(text: str) -> str | None:
    return next((what for what, shape in _SHAPED.items() if shape.search(text)), None)
