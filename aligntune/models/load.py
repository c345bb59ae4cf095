"""Prepared model directories, as models and tokenizers."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from aligntune.errors import ConfigError


def load_policy(path: Path, *, trust_remote_code: bool) -> PreTrainedModel:
    """The causal language model in `path` with fp32 weights on the CPU."""
    model, report = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        # transformers only warns, and leaves them random.
        raise ConfigError(
            f"{path} has no weights for {len(missing)} parameters of {type(model).__name__}, the "
            f"first is {missing[0]!r}; get the whole model"
        )
    return model


def load_tokenizer(path: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in `path`."""
    return AutoTokenizer.from_pretrained(
        path, local_files_only=True, trust_remote_code=trust_remote_code
    )
