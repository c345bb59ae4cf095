"""Any source of a model as one standalone directory: safetensors, tokenizer, chat template."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from aligntune.errors import ConfigError, ResourceError
from aligntune.models import intake, template
from aligntune.models.load import load_tokenizer
from aligntune.models.source import ModelSource

GENERATION = "generation_config.json"
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def prepare(
    source: ModelSource, out: Path, *, chat_template: str | None, trust_remote_code: bool
) -> dict[str, Any]:
    """What the manifest should remember of the model that is now complete in `out`.

    Weights are copied as they are and not loaded, except that a GGUF file is converted to fp32.
    """
    shutil.rmtree(out, ignore_errors=True)
    try:
        out.mkdir(parents=True)
        _collect(source, out, trust_remote_code)
        facts = _complete(out, source, chat_template, trust_remote_code)
    except (OSError, SafetensorError) as error:
        if isinstance(error, ResourceError):
            raise
        raise ResourceError(
            f"{source.location} could not be written to {out}: {error}; make room and run again"
        ) from error
    return facts


def _collect(source: ModelSource, out: Path, trust_remote_code: bool) -> None:
    """Put the files that are used into `out`."""
    if source.kind == "gguf":
        from aligntune.models.gguf import convert

        convert(Path(source.location), out)
        return
    if source.kind == "directory":
        _copy(Path(source.location), out, trust_remote_code)
        return
    from aligntune.hub import download_model

    # A stable name, so that an interrupted download goes on where it stopped.
    download = out.with_name(f"{out.name}.download")
    _copy(download_model(source.location, source.revision, download), out, trust_remote_code)
    shutil.rmtree(download, ignore_errors=True)


def _copy(directory: Path, out: Path, trust_remote_code: bool) -> None:
    # Real copies: a hard link would let whoever rewrites the original change a finished artifact.
    for name in intake.check(directory, trust_remote_code=trust_remote_code):
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(directory / name, out / name)


def _complete(
    out: Path, source: ModelSource, chat_template: str | None, trust_remote_code: bool
) -> dict[str, Any]:
    """Add what the files in `out` lack, check that they fit, and describe the result."""
    config, parameters = _architecture(out, source.location, trust_remote_code)
    tokenizer = _tokenizer(out, source.location, trust_remote_code)
    had_pad, own_template = tokenizer.pad_token is not None, tokenizer.chat_template
    if not had_pad:
        tokenizer.pad_token = tokenizer.eos_token
    origin = template.install(tokenizer, chat_template)
    if not had_pad or tokenizer.chat_template != own_template:
        save_tokenizer(tokenizer, out)
        tokenizer = load_tokenizer(out, trust_remote_code=trust_remote_code)
    rendered = template.render(tokenizer)
    _check_ids(tokenizer, rendered, config, source.location)
    _write_generation_config(out, config, tokenizer)
    text_config = config.get_text_config()
    return {
        "parameters": parameters,
        "model_type": config.model_type,
        "vocab_size": text_config.vocab_size,
        "context_length": getattr(text_config, "max_position_embeddings", None),
        "chat_template": origin,
        "chat_template_sha256": hashlib.sha256(
            tokenizer.get_chat_template().encode()
        ).hexdigest(),
    }
