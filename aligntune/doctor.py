"""What this machine has, and what it lacks: a line per finding."""

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "prefect", "mlflow")
OPTIONAL = ("bitsandbytes", "unsloth", "wandb", "vllm")
CREDENTIALS = {
    "HF_TOKEN": "the hub: gated models, pushes",
    "WANDB_API_KEY": "Weights & Biases",
    "MLFLOW_TRACKING_USERNAME": "an MLflow server",
    "MLFLOW_TRACKING_PASSWORD": "an MLflow server",
    "MLFLOW_TRACKING_TOKEN": "an MLflow server",
    "PREFECT_API_KEY": "Prefect Cloud",
}
SECONDS = 3.0
"""How long a server may take to answer."""
ROOM = 20
"""GiB that a run of a small model easily fills."""


class Finding(NamedTuple):
    state: Literal["ok", "missing", "note"]
    what: str
    says: str


def examine() -> list[Finding]:
    """Everything there is to say about this machine. Asks servers, but never shows a secret."""
    return [*_libraries(), *_devices(), *_room(), *_servers(), *_credentials()]


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
    native = "native" if resolve("auto") == "bf16" else "emulated and slow"
    yield Finding("ok", "cpu", f"{torch.get_num_threads()} threads, bf16 is {native} here")
    yield Finding("ok", "precision: auto", f"means {resolve('auto')}")


def _room() -> Iterator[Finding]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield Finding("ok", "memory", _gib(pages))
    free = shutil.disk_usage(Path.cwd()).free
    enough = free > ROOM * 2**30
    yield Finding("ok" if enough else "note", "disk", f"{_gib(free)} free in this directory")


def _servers() -> Iterator[Finding]:
    from aligntune.paths import hub_endpoint

    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if offline:
        yield Finding("note", "hub", "HF_HUB_OFFLINE is set; only what is cached can be used")
    else:
        yield _answers("hub", hub_endpoint(), "/api/models?limit=1")
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    if tracking.startswith(("http://", "https://")):
        yield _answers("mlflow", tracking, "/health")
    else:
        yield Finding("ok", "mlflow", "a file below the output directory")
    if prefect := os.environ.get("PREFECT_API_URL"):
        yield _answers("prefect", prefect, "/health")
    else:
        yield Finding("ok", "prefect", "no server set; a flow starts one for itself")


def _answers(what: str, url: str, path: str) -> Finding:
    from urllib.error import HTTPError
    from urllib.parse import urlsplit
    from urllib.request import urlopen

    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    try:
        with urlopen(url.rstrip("/") + path, timeout=SECONDS):
            return Finding("ok", what, f"{shown} answers")
    except HTTPError as error:
        return Finding("note", what, f"{shown} answers with status {error.code}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding("missing", what, f"{shown} does not answer ({type(reason).__name__})")


def _credentials() -> Iterator[Finding]:
    for name, purpose in CREDENTIALS.items():
        there = bool(os.environ.get(name))
        says = "set" if there else "not set"
        yield Finding("ok" if there else "note", name, f"{says}; for {purpose}")


def _gib(count: int) -> str:
    return f"{count / 2**30:.0f} GiB"
