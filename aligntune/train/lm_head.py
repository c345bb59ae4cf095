"""The forward pass of TRL's trainers without its detours, for CPUs.

TRL puts a head on the model that cuts the vocabulary into tiles, computes their logits again for
the backward pass and multiplies in fp32 there, at every position of a padded batch. That saves
memory, and on a GPU it has kernels; on a CPU it is 40 % of a step. Here are two things that may be
had instead, alone or together: logits that are kept, of the positions with a label, and batches
without their padding. Neither changes what the trainer is told of a batch.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from aligntune.config.train import Train
from aligntune.evaluate.forward import padded
from aligntune.train.logprobs import frozen
from aligntune.train.padding_free import attend_by_row, flattened, no_mask
from aligntune.train.token_scores import FIELDS, token_scores

LOG = logging.getLogger(__name__)

IGNORED = -100
CLOSE = 1e-3
"""Nats by which a log-probability may be another than TRL's, in fp32."""
PROBE = ((1, 2, 3, 4, 5), (5, 3, 1))
"""Tokens of two rows on which that is tried."""
Forward = Callable[..., Any]


@dataclass(frozen=True)
class Lighter:
    """What is done in the place of what TRL does."""

    plain_head: bool
    padding_free: bool

    @classmethod
    def asked(cls, train: Train) -> "Lighter":
        """By the settings; `auto` is yes on a CPU, since nothing here was measured on a GPU."""
        cpu = not torch.cuda.is_available()
        return cls(
            train.lm_head == "plain" or (train.lm_head == "auto" and cpu),
            cpu if train.padding_free == "auto" else bool(train.padding_free),
        )


def lighten(
    policy: PreTrainedModel | PeftModel,
    lighter: Lighter,
    *,
    wanted: tuple[str, ...],
    longest: int,
    temperature: float = 1.0,
) -> Lighter:
    """Change the forward that TRL's `add_fused_lm_head` has given to `policy`, and return how.

    `wanted` and `temperature` are what TRL's was made with; rows have up to `longest` tokens. Call
    it before anything wraps the model. It is tried on two short rows first: what does not find
    TRL's log-probabilities there is left out, with a warning.
    """
    model = policy.get_base_model() if isinstance(policy, PeftModel) else policy
    theirs = model.forward
    by_row = lighter.padding_free and attend_by_row(model, longest)
    for made in _fewer(Lighter(lighter.plain_head, by_row)):
        head = _plain(model, wanted, temperature) if made.plain_head else theirs
        forward = _unpadded(head) if made.padding_free else head
        if _agree(model, forward, theirs):
            model.forward = MethodType(_chosen(type(model), forward, theirs), model)
            return made
        LOG.warning("this model does not compute the same with %s, which is left out", made)
    return Lighter(plain_head=False, padding_free=False)


def lightened(trainer: Any, train: Train, wanted: tuple[str, ...]) -> None:
    """Lighten a trainer's model as its settings ask, and note on the trainer what was made of it.

    A policy and its reference alike, so that their log-probabilities are from the same path.
    """
    asked, longest = Lighter.asked(train), train.max_length or 0
    trainer.made = asdict(lighten(trainer.model, asked, wanted=wanted, longest=longest))


def _fewer(lighter: Lighter) -> list[Lighter]:
    """It, and what is less than it but not nothing."""
    both = Lighter(True, True)
    parts = [Lighter(True, False), Lighter(False, True)]
    return [both, *parts] if lighter == both else [part for part in parts if part == lighter]


def _chosen(kind: type[PreTrainedModel], forward: Forward, theirs: Forward) -> Forward:
    """`forward` where a trainer asks for log-probabilities, and else theirs."""

    @wraps(kind.forward)  # `generate` reads the signature
    def choose(self: PreTrainedModel, *args: Any, **given: Any) -> Any:
        if args or not given.get("fused_lm_head") or given.get("shift_labels") is not None:
            return theirs(*args, **given)
        return forward(**given)

    return choose


def _plain(model: PreTrainedModel, wanted: tuple[str, ...], temperature: float) -> Forward:
    """A head that keeps the logits of what has a label.

    The model's own forward makes them, so whatever it does to its logits is done to these.
    """
    theirs, text_config = model.forward, model.config.get_text_config()

    def forward(
        *,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        fused_lm_head: bool = True,
        shift_labels: None = None,
        **given: Any,
    ) -> FusedCausalLMOutput:
        learned = labels[:, 1:] != IGNORED
        places = torch.arange(labels.numel(), device=labels.device).view_as(labels)
        with _only(model.get_output_embeddings(), places[:, :-1][learned]):
            outputs = theirs(**given | {"use_cache": False})
        (logits,) = outputs.logits
        found = token_scores(logits, labels[:, 1:][learned], temperature, wanted)
        log_probs = found["log_probs"]
        count = max(len(log_probs), 1) if num_items_in_batch is None else num_items_in_batch
        loss, experts = -log_probs.sum() / count, getattr(outputs, "aux_loss", None)
        if experts is not None:
            loss = loss + getattr(text_config, "router_aux_loss_coef", 0.0) * experts
        return FusedCausalLMOutput(
            loss=loss,
            label_mask=learned,
            aux_loss=experts,
            **{name: _spread(value, learned) for name, value in found.items()},
        )

    return forward


@contextmanager
def _only(head: torch.nn.Module, chosen: Tensor) -> Iterator[None]:
    """Within it the head sees the hidden states (1, N, H) of the places `chosen` (N,) alone."""

    def select(_: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *others = args
        return (hidden.flatten(0, -2)[chosen][None], *others)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _unpadded(head: Forward) -> Forward:
    """A head that is given the batch (B, T) as one row of what is no padding."""

    def forward(**given: Any) -> FusedCausalLMOutput:
        if "cu_seq_lens_q" in given:  # packed: there is no padding in it
            with no_mask():
                return head(**given)
        if not _has_padding(given):
            return head(**given)
        labels, real = given["labels"], given["attention_mask"].bool()
        flat = flattened(given["input_ids"], real)
        # The first token of a row does not follow from the last of the row before.
        own = labels[real].index_fill(0, flat["cu_seq_lens_q"][:-1].long(), IGNORED)
        with no_mask():
            outputs = head(**given | flat | {"labels": own[None], "attention_mask": None})
        learned = labels[:, 1:] != IGNORED
        found = {name: getattr(outputs, name) for name in FIELDS}
        for name, value in found.items():
            if value is not None:
                outputs[name] = _spread(value[outputs.label_mask], learned)
        outputs.label_mask = learned
        return outputs

    return forward


def _has_padding(given: Mapping[str, Any]) -> bool:
    """Whether there is padding to take out, and nothing but the tokens has the batch's shape."""
    tensors = {name for name, value in given.items() if isinstance(value, Tensor) and value.ndim}
    if tensors != {"input_ids", "attention_mask", "labels"}:
        return False
    real, learned = given["attention_mask"].bool(), given["labels"] != IGNORED
    if real.ndim != 2 or real.all():
        return False
    # What is learned of a token follows from the one before it, which has to be there.
    return bool((real | ~learned).all() and (real[:, :-1] | ~learned[:, 1:]).all())


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """(N,) at the N true places of `mask`, and 0 elsewhere; with a gradient even where N is 0."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def _agree(model: PreTrainedModel, forward: Forward, theirs: Forward) -> bool:
    """Whether both find the same log-probabilities; of the model nothing is changed."""
    device = model.get_output_embeddings().weight.device
    ids, mask = (each.to(device) for each in padded(PROBE, 0, "right"))
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": ids.masked_fill(mask == 0, IGNORED),
        "fused_lm_head": True,
        "use_cache": False,
    }
    try:
        with frozen(model):
            found, expected = (head(**inputs).log_probs for head in (forward, theirs))
    except (RuntimeError, TypeError) as error:
        LOG.warning("%s", error)
        return False
    return bool(torch.allclose(found, expected, rtol=0, atol=CLOSE))
