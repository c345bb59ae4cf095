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
    """Raises ConfigError for a name in `peft.target_modules` that no layer has.

    peft wants only one of them to exist; a misspelt one beside it would do nothing.
    """
    if spec.peft is None or isinstance(spec.peft.target_modules, str):
        return
    layers = {name: module for name, module in model.named_modules() if name}
    for target in spec.peft.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = sorted({name.rpartition(".")[2] for name, m in layers.items() if _linear(m)})
            raise ConfigError(
                f"peft.target_modules: the model has no layer {target!r}; its linear layers are "
                f"{', '.join(known)}"
            )


def _linear(module: torch.nn.Module) -> bool:
    # Conv1D is what GPT-2 calls a linear layer whose weight is transposed.
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
