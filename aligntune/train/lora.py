"""LoRA adapters, configured as peft wants them."""

from typing import Any

from peft import LoraConfig, PeftModel

from aligntune.config.train import Peft


def lora(peft: Peft | None, model: Any = None) -> LoraConfig | None:
    """peft's config for a causal language model; None trains all weights, or the adapter that
    `model` already has."""
    if peft is None or isinstance(model, PeftModel):
        return None
    targets = peft.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=peft.r,
        lora_alpha=peft.alpha,
        lora_dropout=peft.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
