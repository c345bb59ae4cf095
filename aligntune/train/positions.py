"""Positions of tokens behind padding, for models that have learned one vector for each."""

from inspect import signature
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel


def count_from_mask(model: PreTrainedModel) -> None:
    """From now on the positions of a padded batch start behind its padding, as in `generate`.

    TRL scores answers behind left-padded prompts without saying where they are. Rotary positions
    are relative and do not mind; GPT-2's would be those of another text.
    """
    trunk = model.base_model
    relative = any("rotary" in type(module).__name__.lower() for module in trunk.modules())
    if not relative and "position_ids" in signature(trunk.forward).parameters:
        trunk.register_forward_pre_hook(_counted, with_kwargs=True)


def _counted(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    mask = kwargs.get("attention_mask")
    said = kwargs.get("position_ids") is not None or kwargs.get("past_key_values") is not None
    if not said and isinstance(mask, Tensor) and mask.dim() == 2:
        kwargs |= {"position_ids": (mask.long().cumsum(-1) - 1).clamp(min=0)}
    return args, kwargs
