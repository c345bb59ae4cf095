"""Frozen weights in 4 or 8 bits, with bitsandbytes."""

from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from aligntune.config.slices import TrainSlice
from aligntune.errors import ConfigError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def quantized(spec: TrainSlice) -> dict[str, Any]:
    """The arguments of `from_pretrained` for `spec.quantization`; none where it is not set."""
    if spec.quantization is None:
        return {}
    check(spec)
    four = spec.quantization == "4bit"
    bits = BitsAndBytesConfig(
        load_in_4bit=four,
        load_in_8bit=not four,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=DTYPES[spec.precision],
    )
    # Quantized layers cannot be moved afterwards, so they are loaded where they are used.
    return {"quantization_config": bits, "device_map": {"": _device()}}


def check(spec: TrainSlice) -> None:
    """Raises ConfigError if quantized weights cannot be trained on here."""
    if spec.peft is None:
        raise ConfigError(
            "model.quantization: quantized weights cannot be trained themselves; add a `peft` "
            "section, or remove model.quantization"
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            "model.quantization: bitsandbytes needs a CUDA GPU, and there is none here; remove it"
        )
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "model.quantization needs the package bitsandbytes; `pip install bitsandbytes`, or "
            "remove it"
        )


def _device() -> int:
    from accelerate import PartialState

    index: int = PartialState().local_process_index
    return index
