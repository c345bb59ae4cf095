"""A prepared model directory as the model that a stage trains."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from aligntune.config.slices import TrainSlice
from aligntune.errors import ConfigError
from aligntune.models.load import load_policy
from aligntune.models.quantization import quantized
from aligntune.models.unsloth import load_fast

FLASH = {"flash_attention_2": "flash-attn", "flash_attention_3": "flash-attn-3"}


def load_trainable(path: Path, spec: TrainSlice) -> PreTrainedModel | PeftModel:
    """The model in `path` with the kernels and in the bits that `spec` asks for.

    Only unsloth puts an adapter on it by itself; else that is the trainer's.
    """
    check_kernel(spec)
    if spec.use_unsloth:
        return load_fast(path, spec)
    options: dict[str, Any] = quantized(spec)
    if spec.attn_implementation:
        options["attn_implementation"] = spec.attn_implementation
    model = load_policy(path, trust_remote_code=spec.trust_remote_code, **options)
    check_targets(model, spec)
    return model


def check_kernel(spec: TrainSlice) -> None:
    """Raises ConfigError where the attention kernel that `spec` asks for cannot run here."""
    package = FLASH.get(spec.attn_implementation or "")
    if package is None:
        return
    what = f"model.attn_implementation: {spec.attn_implementation}"
    if not torch.cuda.is_available():
        raise ConfigError(f"{what} needs a GPU, and there is none here; use sdpa or eager")
    if spec.precision == "fp32":
        raise ConfigError(
            f"{what} cannot compute in fp32; set model.precision to bf16, or use sdpa"
        )
    if not any(find_spec(name) for name in ("flash_attn", "flash_attn_interface", "kernels")):
        raise ConfigError(f"{what} needs its kernels; `pip install {package}`, or use sdpa")


def check_targets(model: PreTrainedModel, spec: TrainSlice) -> None:
    """Raises ConfigError for a name in `peft.target_modules` that no layer has, or one of a layer
    that cannot have an adapter.

    peft wants only one of them to exist; a misspelt one beside it would do nothing.
    """
    if spec.peft is None or isinstance(spec.peft.target_modules, str):
        return
    layers = {name: module for name, module in model.named_modules() if name}
    for target in spec.peft.target_modules:
        chosen = [m for name, m in layers.items() if name == target or name.endswith(f".{target}")]
        why = next(filter(None, (_refusal(model, module) for module in chosen)), None)
        if chosen and why is None:
            continue
        found = {name for name, m in layers.items() if _linear(m) and not _refusal(model, m)}
        known = ", ".join(sorted({name.rpartition(".")[2] for name in found}))
        what = f"{target!r} {why}" if why else f"the model has no layer {target!r}"
        raise ConfigError(f"peft.target_modules: {what}; its linear layers are {known}")


def _refusal(model: PreTrainedModel, module: torch.nn.Module) -> str | None:
    """Why this layer of the model cannot have an adapter."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if module is head:
        return "is the output layer, which TRL reads without an adapter"
    if module is embedding and head is not None and head.weight is embedding.weight:
        return "is the output layer too, which merging would change with it"
    if not any(weight.dim() == 2 for weight in module.parameters(recurse=False)):
        return "is no linear layer"  # a norm, experts in one tensor, or what holds several layers
    return None


def _linear(module: torch.nn.Module) -> bool:
    # Conv1D is what GPT-2 calls a linear layer whose weight is transposed.
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
