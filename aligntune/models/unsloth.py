"""Models with unsloth's kernels (https://github.com/unslothai/unsloth)."""

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from aligntune.config.slices import TrainSlice
from aligntune.errors import ConfigError
from aligntune.models import quantization
from aligntune.models.load import reading


def load_fast(path: Path, spec: TrainSlice) -> PreTrainedModel | PeftModel:
    """The causal language model in `path`, with its new adapter where `spec.peft` asks for one.

    Raises ConfigError where unsloth is not installed or has no GPU.
    """
    _check(spec)
    # Read when a model is called: without it there is a loss but no logits, which TRL measures.
    os.environ["UNSLOTH_RETURN_LOGITS"] = "1"
    fast: Any = import_module("unsloth").FastLanguageModel
    named = spec.attn_implementation
    kernel = {"attn_implementation": named} if named else {}
    with reading(f"model {path}"):
        model, _ = fast.from_pretrained(
            model_name=str(path),
            use_exact_model_name=True,  # and not a quantized twin from the hub
            local_files_only=True,
            trust_remote_code=spec.trust_remote_code,
            max_seq_length=spec.train.max_length,
            dtype=quantization.DTYPES[spec.precision],
            load_in_4bit=spec.quantization == "4bit",
            load_in_8bit=spec.quantization == "8bit",
            full_finetuning=spec.peft is None,
            float32_mixed_precision=True if spec.peft is None else None,
            use_gradient_checkpointing=spec.gradient_checkpointing,
            random_state=spec.seed,
            **kernel,
        )
    if spec.peft is None:
        return cast(PreTrainedModel, model)
    targets = spec.peft.target_modules
    adapted: PeftModel = fast.get_peft_model(
        model,
        r=spec.peft.r,
        lora_alpha=spec.peft.alpha,
        lora_dropout=spec.peft.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_gradient_checkpointing=spec.gradient_checkpointing,
        random_state=spec.seed,
    )
    return adapted


def _check(spec: TrainSlice) -> None:
    if find_spec("unsloth") is None:
        raise ConfigError(
            "model.use_unsloth needs the package unsloth; `pip install unsloth`, or set it to false"
        )
    if not torch.cuda.is_available():
        raise ConfigError("model.use_unsloth needs a GPU, and there is none here; set it to false")
    if spec.quantization:
        quantization.check(spec)
