"""What this machine has, and what it lacks: a line per finding."""

import os
import shutil
from base64 import b64encode
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import Request

from aligntune.config.logging import Logging
from aligntune.errors import ConfigError
from aligntune.paths import nearest

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "prefect", "mlflow")
OPTIONAL = ("bitsandbytes", "unsloth", "wandb", "vllm")
CREDENTIALS = {
    "HF_TOKEN": "the hub: gated models, pushes",
    "WANDB_API_KEY": "Weights & Biases",
    "MLFLOW_TRACKING_USERNAME": "an MLflow server",
    "MLFLOW_TRACKING_PASSWORD": "an MLflow server",
    "MLFLOW_TRACKING_TOKEN": "an MLflow server",
    "PREFECT_API_KEY": "Prefect Cloud",
    "PREFECT_API_AUTH_STRING": "a Prefect server with a password",
}
SECONDS = 3.0
"""How long a server may take to answer."""
ROOM = 20
"""GiB that a run of a small model easily fills."""


class Finding(NamedTuple):
    state: Literal["ok", "missing", "note"]
    what: str
    says: str


def examine(output_dir: str | None = None) -> list[Finding]:
    """Everything there is to say about this machine. Asks servers, but never shows a secret.

    Free disk space is that below `output_dir`, by default where a config writes.
    """
    where = output_dir or Logging.model_fields["output_dir"].default
    servers = [*_hub(), *_mlflow(where), *_prefect()]
    return [*_libraries(), *_devices(), *_room(where), *servers, *_credentials()]


def _libraries() -> Iterator[Finding]:
    for name in ("aligntune-pipeline", *LIBRARIES):
        try:
            yield Finding("ok", name, version(name))
        except PackageNotFoundError:
            yield Finding("missing", name, f"not installed; pip install {name}")
    for name in OPTIONAL:
        try:
            yield Finding("ok", name, version(name))
        except PackageNotFoundError:
            yield Finding("note", name, "not installed, and needed only if a config asks for it")


def _devices() -> Iterator[Finding]:
    import torch

    from aligntune.models.precision import resolve

    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16, use fp16"
        yield Finding("ok", f"cuda:{index}", f"{found.name}, {_gib(found.total_memory)}, {bf16}")
    if not torch.cuda.is_available():
        yield Finding("note", "gpu", "none; training runs on the CPU")
    native = "native" if resolve("auto", gpus=()) == "bf16" else "emulated and slow"
    vectors = torch.backends.cpu.get_cpu_capability()
    vectors = "no AVX" if vectors in ("DEFAULT", "NO AVX") else vectors
    cpu = f"{torch.get_num_threads()} threads, {vectors}, bf16 is {native} here"
    yield Finding("ok", "cpu", cpu)
    yield Finding("ok", "precision: auto", f"means {resolve('auto')}")


def _room(output_dir: str) -> Iterator[Finding]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield Finding("ok", "memory", _gib(pages))
    try:
        free = shutil.disk_usage(nearest(output_dir)).free
    except ConfigError as error:
        yield Finding("missing", "disk", str(error))
        return
    enough = free > ROOM * 2**30
    yield Finding("ok" if enough else "note", "disk", f"{_gib(free)} free for {output_dir}")


def _hub() -> Iterator[Finding]:
    from aligntune.paths import hub_endpoint

    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if offline:
        yield Finding("note", "hub", "HF_HUB_OFFLINE is set; only what is cached can be used")
    else:
        yield _answers("hub", hub_endpoint(), "/api/models?limit=1")


def _mlflow(output_dir: str) -> Iterator[Finding]:
    from aligntune.paths import experiment_name, one_registry, tracking_uri

    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    if tracking.startswith(("http://", "https://")):
        yield _answers("mlflow", tracking, "/health")
    else:
        kind = tracking.partition(":")[0]
        below = "a file below the output directory"
        yield Finding("ok", "mlflow", f"a store of kind {kind}, not tried" if tracking else below)
    yield Finding("ok", "mlflow experiment", experiment_name())
    if all(map(os.environ.get, ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"))):
        says = "not used, because MLFLOW_EXPERIMENT_NAME is set"
        yield Finding("note", "MLFLOW_EXPERIMENT_ID", says)
    try:
        one_registry(tracking_uri(Path(os.path.expanduser(output_dir)).absolute()))
    except ConfigError as error:
        yield Finding("missing", "mlflow registry", str(error))


def _prefect() -> Iterator[Finding]:
    try:
        from flows.api import configured

        prefect = os.environ.get("PREFECT_API_URL") or configured()
    except ValueError as error:  # as TOML's and pydantic's are; of these, the texts show values
        says = f"a profile or a PREFECT_ variable is not valid ({type(error).__name__})"
        yield Finding("missing", "prefect", f"{says}; `prefect version` shows which")
        return
    if prefect:
        yield _answers("prefect", prefect, "/health")
    else:
        yield Finding("ok", "prefect", "no server set; a flow starts one for itself")


def _answers(what: str, url: str, path: str) -> Finding:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        shown, request = _request(url, path)
    except ValueError:
        # Its text may hold a part of the password, and so may any message about it.
        return Finding("missing", what, "the address is not valid; `%`-encode the password in it")
    try:
        with urlopen(request, timeout=SECONDS):
            return Finding("ok", what, f"{shown} answers")
    except HTTPError as error:
        return Finding("note", what, f"{shown} answers with status {error.code}")
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        return Finding("missing", what, f"{shown} does not answer ({type(reason).__name__})")


def _request(url: str, path: str) -> tuple[str, Request]:
    """The server as it may be shown, and a request to it with the user and password of `url`.

    ValueError where it is not certain which part is the password.
    """
    parts = urlsplit(url)
    host = parts.hostname
    rest = parts.path + parts.query + parts.fragment
    if not host or parts.scheme not in ("http", "https") or "@" in rest:
        raise ValueError("not an address")
    host = f"[{host}]" if ":" in host else host
    netloc = host if parts.port is None else f"{host}:{parts.port}"
    request = Request(f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}{path}")
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        basic = f"Basic {b64encode(pair.encode()).decode()}"
        request.add_unredirected_header("Authorization", basic)  # for this server alone
    return f"{parts.scheme}://{netloc}", request


def _credentials() -> Iterator[Finding]:
    for name, purpose in CREDENTIALS.items():
        there = bool(os.environ.get(name))
        says = "set" if there else "not set"
        yield Finding("ok" if there else "note", name, f"{says}; for {purpose}")


def _gib(count: int) -> str:
    return f"{count / 2**30:.0f} GiB"
