"""A cache of keys and values with room behind them: nothing is copied for every token."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from aligntune.estimate.memory import GROWN


def growing_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache for `model`; layers with a window keep transformers' own kind."""
    cache = DynamicCache(config=model.config.get_text_config())
    cache.layers = [Growing() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class Growing(DynamicLayer):  # type: ignore[misc]
    """Of one layer, in fp32: keys are that anyway behind a rotation, and of products in bf16 the
    scores would be rounded before the softmax."""

    _room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        key, value = key_states.float(), value_states.float()
        if not self.is_initialized:
            self.lazy_initialization(key, value)
        begun = self.get_seq_length()
        end = begun + key.size(2)
        keys, values = self._with_room(key, value, begun, end)
        keys[:, :, begun:end] = key
        values[:, :, begun:end] = value
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._room = None

    def _with_room(self, key: Tensor, value: Tensor, begun: int, end: int) -> tuple[Tensor, Tensor]:
        if self._room is None or self._room[0].size(2) < end:
            self._room = (
                _moved(self.keys, key, begun, end),
                _moved(self.values, value, begun, end),
            )
        return self._room


def _moved(old: Tensor, new: Tensor, begun: int, end: int) -> Tensor:
    rows, heads, _, width = new.shape
    room = new.new_empty(rows, heads, -(-end // GROWN) * GROWN, width)
    if begun:
        room[:, :, :begun] = old
    return room
