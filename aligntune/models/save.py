"""Trained models, written as whole directories."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aligntune.errors import Diverged, ResourceError

UNSETTLED = ("is_local", "local_files_only", "name_or_path")
"""What transformers notes in a tokenizer's config about the process that saved it."""


def save_policy(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, out: Path
) -> None:
    """Write `out/model/`, and `out/adapter/` for a PeftModel, which is merged in place by this.

    Weights that are not finite raise Diverged, and nothing is written.
    """
    folders = [out / "model", out / "adapter"]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    _check_finite(model.named_parameters())
    try:
        if isinstance(model, PeftModel):
            _save_adapter(model, out / "adapter")
            model = _merged(model, out / "adapter")
        # The trainer turns the key-value cache off, and the config would keep it off for good.
        model.config.use_cache = True
        model.save_pretrained(out / "model")
        save_tokenizer(tokenizer, out / "model")
    except (OSError, SafetensorError) as error:
        raise ResourceError(
            f"the model could not be written to {out}: {error}; make room and run again"
        ) from error


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the tokenizer so that the same tokenizer gives the same bytes anywhere."""
    tokenizer.save_pretrained(folder)
    _edit(folder / "tokenizer_config.json", dict.fromkeys(UNSETTLED))


def _save_adapter(model: PeftModel, folder: Path) -> None:
    model.save_pretrained(str(folder), safe_serialization=True)
    # peft writes a model card with this machine's path of the base model in it.
    (folder / "README.md").unlink(missing_ok=True)
    base = str(model.peft_config["default"].base_model_name_or_path or "")
    if Path(base).is_absolute():
        _edit(folder / "adapter_config.json", {"base_model_name_or_path": None})


def _merged(model: PeftModel, adapter: Path) -> PreTrainedModel:
    try:
        merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        shutil.rmtree(adapter)
        raise Diverged(f"the adapter cannot be merged into its base: {error}") from error
    return merged


def _check_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    for name, tensor in tensors:
        if not torch.isfinite(tensor).all():
            raise Diverged(
                f"weight {name!r} is not finite, so there is nothing to save; lower "
                "train.learning_rate or train.max_grad_norm and train again"
            )
