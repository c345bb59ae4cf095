"""Log-probabilities as sampling sees them: no gradient, no dropout."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel

from aligntune.evaluate.forward import padded


def bare(model: Any) -> PreTrainedModel:
    """The language model itself, without the adapter around it."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


@contextmanager
def frozen(model: Module) -> Iterator[None]:
    """`model` in evaluation mode and without gradients; afterwards it is as before."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def token_logps(
    trainer: Any, ids: Tensor, mask: Tensor, keep: int, *, grouped: bool = False
) -> Tensor:
    """Log-probability in nats, at the sampling temperature, of each of the last `keep` tokens;
    meaningless where `mask` is 0. (N, S), (N, S) -> (N, keep)

    `trainer` is a GRPO trainer; its policy runs on as many rows at once as in training. `grouped`
    rows have their prompts in common, and are compared with each other alone.
    """
    with frozen(trainer.model), trainer.comparing(grouped):
        logps, *_ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, keep, batch_size=trainer.args.per_device_train_batch_size
        )
    return torch.as_tensor(logps).float()


def completion_logps(
    trainer: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], pad: int
) -> list[list[float]]:
    """The same for completions of any lengths as lists, each behind its prompt."""
    if not prompts:
        return []
    left, left_mask = padded(prompts, pad, "left")
    right, right_mask = padded(completions, pad, "right")
    ids, mask = torch.cat([left, right], dim=1), torch.cat([left_mask, right_mask], dim=1)
    device = trainer.accelerator.device
    logps = token_logps(trainer, ids.to(device), mask.to(device), right.size(1))
    return [row[: len(ids)].tolist() for row, ids in zip(logps.cpu(), completions, strict=True)]
