"""Prepared model directories, as models and tokenizers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from aligntune.errors import AlignTuneError, ConfigError

REMEDY = "use a causal language model that transformers knows, with all its files"


def load_policy(path: Path, *, trust_remote_code: bool, **options: Any) -> PreTrainedModel:
    """The causal language model in `path` with fp32 weights on the CPU.

    `options` go to `from_pretrained`: an attention kernel, or how to quantize the weights.
    """
    kernel = options.get("attn_implementation")
    remedy = f"{REMEDY}, or another model.attn_implementation than {kernel}" if kernel else REMEDY
    with reading(f"model {path}", remedy):
        model, report = read_weights(
            AutoModelForCausalLM, path, trust_remote_code=trust_remote_code, **options
        )
    check_whole(report, f"model {path}")
    return model


def read_weights(
    kind: Any, path: Path, *, trust_remote_code: bool, **options: Any
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """The model in `path` as transformers' class `kind` reads it, with fp32 weights on the CPU, and
    what it says of keys that are missing or do not fit. Call it within `reading`."""
    model, report = kind.from_pretrained(
        path,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        **options,
    )
    return model, report


def load_tokenizer(path: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in `path`."""
    with reading(f"the tokenizer of {path}"):
        tokenizer = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=trust_remote_code
        )
    return cast(PreTrainedTokenizerBase, tokenizer)


def check_whole(report: Mapping[str, Any], what: str) -> None:
    """Raises if transformers found no weights for a parameter: it only warns of random ones."""
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(
            f"{what} has no weights for {len(missing)} parameters, such as {missing[0]!r}; get "
            "the whole model"
        )


@contextmanager
def reading(what: str, remedy: str = REMEDY) -> Iterator[None]:
    """Turns whatever transformers makes of files that it cannot read into a ConfigError.

    Broad, because tokenizers raises plain `Exception` and a wrong number in a config can raise
    anything up to ZeroDivisionError. A full disk or memory is not the files' fault and passes.
    """
    try:
        yield
    except (AlignTuneError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ConfigError(
            f"{what} cannot be loaded: {type(error).__name__}: {error}; {remedy}"
        ) from error
