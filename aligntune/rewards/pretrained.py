"""What models that judge have in common, whatever they judge by: tokenizer, weights, device."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from aligntune.errors import ConfigError

LONGEST = 2048
"""Tokens that are read where neither model nor tokenizer has a limit."""


def chosen(device: str) -> torch.device:
    """The device that a config means; two names of the same one give the same.

    With its number, since each thread has a current GPU of its own, and rewards run in threads:
    only the one that this process trains on is meant.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    found = torch.device(name)
    if found.type == "cuda" and found.index is None and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return found


def present(device: str) -> torch.device:
    """The same. ConfigError where this machine does not have it."""
    found = chosen(device)
    here = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (found.index or 0) >= here.get(found.type, 1):
        count = here[found.type] or "no"
        raise ConfigError(f"rewards.device is {device!r}, and there is {count} GPU here; use auto")
    return found


def tokenizer_of(name: str, **options: Any) -> Any:
    """The tokenizer in the directory `name`, which pads on the right: on the left, as some that
    are saved with generative models do, texts would be at other positions in other batches."""
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="right", **options)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def weights_of(kind: Any, name: str, what: str) -> tuple[Any, list[str]]:
    """The model in the directory `name` in fp32, as transformers' class `kind` loads it, and the
    parameters, sorted, that have no weights there. `what` it is called in a message.

    Raises:
        ConfigError: it has no safetensors.
    """
    if Path(name).is_dir() and not list(Path(name).glob("*.safetensors")):
        raise ConfigError(
            f"{what} {name!r} has no safetensors; weights in other formats can run code when they "
            "are loaded, convert them first"
        )
    # In fp32: TRL's habit of the policy's dtype would round small differences away.
    model, info = kind.from_pretrained(
        name, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    return model, sorted(info["missing_keys"])


def positions(model: Any) -> int:
    """The tokens that the model can tell apart by position."""
    limit = int(getattr(model.config, "max_position_embeddings", None) or LONGEST)
    for name, module in model.named_modules():
        # RoBERTa and its kin start to count after the padding's index.
        if (
            name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            return limit - int(module.padding_idx) - 1
    return limit
