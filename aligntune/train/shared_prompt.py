"""Log-probabilities of answers to the same prompts, with each prompt computed once.

Prompts and answers become one row of tokens without padding. The last token of a prompt is in it
once for each answer, since that is where the answer's first token is predicted: every token behind
the prompts predicts one token of an answer, and nothing else is computed.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aligntune.estimate.memory import PAYS
from aligntune.evaluate.forward import padded
from aligntune.train.dynamic_sampling import Batch
from aligntune.train.group_attention import Groups, sharing
from aligntune.train.lm_head import CLOSE, IGNORED
from aligntune.train.logprobs import frozen
from aligntune.train.token_scores import token_scores

LOG = logging.getLogger(__name__)
PROBE = (((3, 4, 5, 6), (7, 8, 9)), ((3, 4, 5, 6), (9, 1)), ((2,), (5, 6, 7, 8)))
"""Prompts and answers on which it is tried."""


@dataclass(frozen=True)
class Shared:
    """A batch (B, W) of prompts and answers as one row of N tokens."""

    ids: Tensor
    """(1, N): the prompts, and then the answers."""
    positions: Tensor
    """(1, N)"""
    targets: Tensor
    """(M,) the tokens of all answers, which the last M of the row predict."""
    counted: Tensor
    """(B, T) what is real in the answers: M in all."""
    groups: Groups

    def spread(self, values: Tensor) -> Tensor:
        """What is known of each token of the answers, where it is in the batch. (M,) -> (B, T)"""
        return values.new_zeros(self.counted.shape).masked_scatter(self.counted, values)


def shared(ids: Tensor, mask: Tensor, answers: int) -> Shared | None:
    """The batch as one row; None where there is no answer in it.

    `ids` and `mask` (B, W) have prompts that end, and answers that begin, `answers` tokens before
    the end of a row.
    """
    counted = mask[:, -answers:].bool()
    lengths = counted.sum(1).tolist()
    rows = [row for row, length in enumerate(lengths) if length]
    if not rows:
        return None
    asked = [tuple(ids[row, :-answers][mask[row, :-answers].bool()].tolist()) for row in rows]
    distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(asked))}
    said = [ids[row, -answers:][: lengths[row]] for row in rows]
    heads = [torch.tensor(prompt[:-1], dtype=ids.dtype, device=ids.device) for prompt in distinct]
    tails = [
        torch.cat([ids.new_tensor(prompt[-1:]), answer[:-1]])
        for prompt, answer in zip(asked, said, strict=True)
    ]
    pieces = [*heads, *tails]
    starts = [0] * len(heads) + [len(prompt) - 1 for prompt in asked]
    positions = [
        torch.arange(start, start + len(piece), device=ids.device)
        for start, piece in zip(starts, pieces, strict=True)
    ]
    of = [distinct[prompt] for prompt in asked]
    return Shared(
        torch.cat(pieces)[None],
        torch.cat(positions)[None],
        torch.cat(said),
        counted,
        _groups([len(head) for head in heads], [len(tail) for tail in tails], of, ids.device),
    )


def _groups(
    prompts: Sequence[int], answers: Sequence[int], of: Sequence[int], device: torch.device
) -> Groups:
    """Of prompts and answers with these lengths, one behind the other."""
    first, inside_prompts = _places(prompts, 0, device)
    second, inside_answers = _places(answers, sum(prompts), device)
    number = torch.tensor(of, device=device)
    seen = inside_prompts[number][:, None, None, :]
    wide, tall = first.size(1), second.size(1)
    own = torch.ones(tall, tall, dtype=torch.bool, device=device).tril()
    mask = torch.cat([seen.expand(-1, 1, tall, wide), own.expand(len(of), 1, tall, tall)], dim=3)
    flat = torch.cat([inside_prompts.flatten(), inside_answers.flatten()])
    return Groups(first, second, number, mask, flat.nonzero().flatten())


def _places(lengths: Sequence[int], begin: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(R, L) places of R pieces of a row that begin at `begin`, and whether they are within it."""
    sizes = torch.tensor(lengths, device=device)[:, None]
    count = torch.arange(max(lengths), device=device)[None]
    inside = count < sizes
    starts = begin + sizes.cumsum(0) - sizes
    return torch.where(inside, starts + count, 0), inside


def pays(model: PreTrainedModel, prompt: int, answer: int, answers: int, prompts: int = 1) -> bool:
    """Whether it is less work to compute `answers` answers of `answer` tokens behind `prompts`
    prompts of `prompt` tokens in one row.

    Counted in multiply-adds of one layer: those with weights for each token, and those of attention
    for each pair of tokens, which only the answers' part has in both.
    """
    config = model.config.get_text_config()
    wide = config.hidden_size
    layers = max(config.num_hidden_layers, 1)
    weights = sum(p.numel() for p in model.base_model.parameters()) / layers
    apart = answers * (prompt + answer)
    together = prompts * prompt + answers * answer
    pairs_apart = answers * (prompt + answer) ** 2
    pairs_together = prompts * prompt**2 + answers * answer * (prompt + answer)
    usual = apart * weights + 2 * wide * pairs_apart
    return bool(usual > PAYS * (together * weights + 2 * wide * pairs_together))


def score(
    model: Any, batch: Shared, *, temperature: float, plain: bool, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """(M,) log-probabilities in nats of the answers' tokens at the temperature, and entropies.

    `model` has TRL's fused head; `plain` keeps the logits instead of computing them again for the
    backward pass.
    """
    inputs: dict[str, Any] = {
        "input_ids": batch.ids,
        "position_ids": batch.positions,
        "groups": batch.groups,
        "use_cache": False,
    }
    count = len(batch.targets)
    if not plain:
        labels = torch.full_like(batch.ids, IGNORED)
        labels[0, -count:] = batch.targets
        with sharing():
            found = model(**inputs, shift_labels=labels, fused_lm_head=True)
        entropies = found.entropy[0, -count:] if entropy else None
        return found.log_probs[0, -count:], entropies
    with sharing():
        logits = model(**inputs, logits_to_keep=count).logits[0, -count:]
    wanted = ("log_probs", "entropy") if entropy else ("log_probs",)
    scores = token_scores(logits, batch.targets, temperature, wanted)
    return scores["log_probs"], scores.get("entropy")


def agrees(model: Any) -> bool:
    """Whether `model`, which attends by group, finds the same in one row as in a padded batch."""
    device = next(model.parameters()).device
    prompts = padded([prompt for prompt, _ in PROBE], 0, "left")
    answers = padded([answer for _, answer in PROBE], 0, "right")
    ids, mask = (torch.cat(each, dim=1).to(device) for each in zip(prompts, answers, strict=True))
    keep = answers[0].size(1)
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, :-keep] = IGNORED
    batch = shared(ids, mask, keep)
    assert batch is not None
    try:
        with frozen(model):
            rows = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
            one, _ = score(model, batch, temperature=1.0, plain=False, entropy=False)
    except (RuntimeError, TypeError) as error:
        LOG.warning("prompts are not shared, since this model does not take that: %s", error)
        return False
    theirs = rows.log_probs[:, -keep:] * batch.counted
    close = torch.allclose(batch.spread(one), theirs, rtol=0, atol=CLOSE)
    if not close:
        LOG.warning("prompts are not shared, since this model sees more of a row than its answer")
    return close


def by_prompt(batches: Sequence[Batch]) -> list[Batch]:
    """The same rows dealt anew into as many batches, those with one prompt one behind the other,
    and the prompts in the order in which they were first there."""
    if len(batches) == 1:
        return list(batches)
    whole = {
        name: torch.cat([batch[name] for batch in batches]) if first.dim() else first
        for name, first in batches[0].items()
    }
    found: dict[tuple[int, ...], list[int]] = {}
    for row, (ids, mask) in enumerate(zip(whole["prompt_ids"], whole["prompt_mask"], strict=True)):
        found.setdefault(tuple(ids[mask.bool()].tolist()), []).append(row)
    order = torch.tensor([row for rows in found.values() for row in rows])
    parts = order.chunk(len(batches))
    return [
        {name: each[part] if each.dim() else each for name, each in whole.items()} for part in parts
    ]
