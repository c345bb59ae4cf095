"""What every forward pass of an evaluation shares.

Shapes, everywhere in this package: N prompts or rows in all, B of them in a batch, T tokens, V
entries of the vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aligntune.config.model import Precision
from aligntune.errors import Diverged
from aligntune.heartbeat import beat

Tick = Callable[[int, int], None]
"""(done, in all)."""

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def inference(model: PreTrainedModel, precision: Precision) -> Iterator[None]:
    """No gradients, no dropout, arithmetic in `precision` where that is safe for it.

    Entered once for many batches, so that the weights are rounded once and not per batch.
    """
    half = HALF.get(precision)
    arithmetic = torch.autocast(model.device.type, dtype=half) if half else nullcontext()
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), arithmetic, at_each_pass(model, beat):
            yield
    finally:
        model.train(training)


@contextmanager
def at_each_pass(model: PreTrainedModel, act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` before every forward pass of the model in the block; it may raise."""

    def hook(*_: object) -> None:
        act()

    hooked = model.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        hooked.remove()


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Indices by falling length: little padding, and a batch that is too large fails at once."""
    return sorted(range(len(lengths)), key=lambda index: -lengths[index])


def tokens_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered texts; the chat template has already written every special token."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


def padded(
    rows: Sequence[Sequence[int]], pad: int, side: Literal["left", "right"]
) -> tuple[Tensor, Tensor]:
    """(B, T) tokens with `pad` on one side, and 1 where they are real, which is by their lengths:
    padding may be the end token."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    ids = pad_sequence(tensors, batch_first=True, padding_value=pad, padding_side=side)
    ones = [torch.ones_like(tensor) for tensor in tensors]
    return ids, pad_sequence(ones, batch_first=True, padding_side=side)


def longest_sequence(model: PreTrainedModel, max_length: int | None) -> int | None:
    """`max_length`, or the model's number of positions where that is less; None: no limit."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min((limit for limit in (max_length, positions) if limit is not None), default=None)


def diverged(what: str) -> Diverged:
    return Diverged(
        f"the model's {what} are not finite: its weights or its fp16 arithmetic overflowed; train "
        "it again with a lower train.learning_rate, or set model.precision: fp32"
    )
