"""Trained models, written as whole directories."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aligntune.errors import Diverged, ResourceError
from aligntune.models.intake import read_json
from aligntune.models.load import check_whole, read_weights, reading

ADAPTER = "default"
"""What peft calls the adapter that is trained; TRL may keep a frozen copy beside it."""
UNSETTLED = {"is_local", "local_files_only", "name_or_path"}
"""What transformers notes in a tokenizer's config about the process that saved it."""


def save_policy(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, out: Path
) -> None:
    """Write `out/model/`, and `out/adapter/` for a PeftModel, which is merged in place by this.

    Weights that are not finite raise Diverged, and nothing is written.
    """
    for folder in (out / "model", out / "adapter"):
        shutil.rmtree(folder, ignore_errors=True)
    check_finite(model.named_parameters())
    try:
        if isinstance(model, PeftModel):
            _save_adapter(model, out / "adapter")
            model = _merged(model, out / "adapter")
        # The trainer turns the key-value cache off, and the config would keep it off for good.
        model.config.use_cache = True
        save_model(model, out / "model")
        save_tokenizer(tokenizer, out / "model")
    except (OSError, SafetensorError) as error:
        raise ResourceError(
            f"the model could not be written to {out}: {error}; make room and run again"
        ) from error


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write weights and configs, all with the permissions that new files have here."""
    model.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", weights)  # safetensors allows only the owner


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the tokenizer so that the same tokenizer gives the same bytes anywhere."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    write_json(path, {k: v for k, v in read_json(path).items() if k not in UNSETTLED})


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` the way transformers does."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save_adapter(model: PeftModel, folder: Path) -> None:
    # Without the flag peft asks the hub whether the base's vocabulary was resized; ours never is.
    model.save_pretrained(str(folder), selected_adapters=[ADAPTER], save_embedding_layers=False)
    # peft writes a model card, with this machine's path of the base model in it.
    (folder / "README.md").unlink(missing_ok=True)
    config = read_json(folder / "adapter_config.json")
    if Path(config["base_model_name_or_path"] or "").is_absolute():
        config["base_model_name_or_path"] = None
    # A set to peft, so its order would differ from run to run.
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    write_json(folder / "adapter_config.json", config)


def _merged(model: PeftModel, adapter: Path) -> PreTrainedModel:
    base = model.get_base_model()
    if not _whole(base):
        model = PeftModel.from_pretrained(_reloaded(base), str(adapter), adapter_name=ADAPTER)
    try:
        merged: PreTrainedModel = model.merge_and_unload(safe_merge=True, adapter_names=[ADAPTER])
    except ValueError as error:
        shutil.rmtree(adapter)
        raise Diverged(
            f"the adapter cannot be merged into its base: {error}; lower train.learning_rate"
        ) from error
    return merged


def _whole(base: PreTrainedModel) -> bool:
    """Whether the base's weights are as they are on the disk, and not rounded to fewer bits."""
    frozen = (p for name, p in base.named_parameters() if "lora_" not in name)
    return all(parameter.dtype == torch.float32 for parameter in frozen)


def _reloaded(base: PreTrainedModel) -> PreTrainedModel:
    """The base again, with fp32 weights: merging into rounded ones would round the adapter too."""
    path = base.config.name_or_path
    with reading(f"model {path}"):
        model, report = read_weights(type(base), path, trust_remote_code=False)
    check_whole(report, f"model {path}")
    return model


def check_finite(weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raise Diverged for weights that are not finite."""
    for name, weight in weights:
        if not torch.isfinite(weight).all():
            raise Diverged(
                f"weight {name!r} is not finite, so there is nothing to save; lower "
                "train.learning_rate or train.max_grad_norm and train again"
            )
