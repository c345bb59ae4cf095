"""A policy that samples from a bf16 copy of its weights, laid out as the CPU reads them fastest.

The fp32 weights stay what is trained. The copy is made when sampling begins and is gone when it
ends, so it is never there beside the activations of an update, and never out of date.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

ROWS = 8
"""Answers that are sampled at once: what oneDNN chooses a layout for."""


def can_pack() -> bool:
    """Whether torch's build and this CPU have oneDNN's bf16 products."""
    return bool(torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Within, and without gradient, `model` computes as under bf16 autocast, its linear layers from
    copies of their weights. Adapters are merged into the copies, so they have no dropout."""
    changed: list[nn.Module] = []
    try:
        with torch.autocast("cpu", torch.bfloat16):
            for module in _linears(model):
                module.forward = _product(*_weights(module))
                changed.append(module)
            yield
    finally:
        for module in changed:
            del module.forward


def _linears(module: nn.Module) -> Iterator[nn.Module]:
    """The layers below `module` that are a matrix and maybe a bias, adapters and all."""
    if isinstance(module, BaseTunerLayer):
        if type(module) is LoraLinear and _plain(module.get_base_layer()):
            yield module
    elif _plain(module):
        yield module
    else:
        for child in module.children():
            yield from _linears(child)


def _plain(module: nn.Module) -> bool:
    return type(module) in (nn.Linear, Conv1D) and "forward" not in vars(module)


def _weights(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """(outputs, inputs) and (outputs,)"""
    layer: Any = module.get_base_layer() if isinstance(module, LoraLinear) else module
    weight = layer.weight
    if isinstance(module, LoraLinear) and not module.disable_adapters:
        for name in module.active_adapters:
            weight = weight + module.get_delta_weight(name)
    return weight.t() if isinstance(layer, Conv1D) else weight, layer.bias


def _product(weight: Tensor, bias: Tensor | None) -> Callable[..., Tensor]:
    ready = torch.ops.mkldnn._reorder_linear_weight(weight.to(torch.bfloat16).contiguous(), ROWS)
    added = None if bias is None else bias.to(torch.bfloat16)

    def forward(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(
            hidden.to(torch.bfloat16), ready, added, "none", [], ""
        )
        return made

    return forward
