"""LoRA adapters, configured as peft wants them."""

from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, PeftModel

from aligntune.config.train import Peft


def lora(
    peft: Peft | None, model: Any = None, *, heads: Sequence[str] | None = None
) -> LoraConfig | None:
    """peft's config for a causal language model, or for a classification model with these `heads`,
    which are trained in full; None trains all weights, or the adapter that `model` already has."""
    if peft is None or isinstance(model, PeftModel):
        return None
    targets = peft.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM" if heads is None else "SEQ_CLS",
        modules_to_save=list(heads) if heads else None,
        r=peft.r,
        lora_alpha=peft.alpha,
        lora_dropout=peft.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
