"""Log-probabilities of given completions, teacher forced."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aligntune.errors import ConfigError
from aligntune.evaluate.forward import (
    Tick,
    diverged,
    inference,
    longest_first,
    padded,
    tokens_of,
)
from aligntune.evaluate.types import Subject
from aligntune.models.chat import Messages, render

LOGITS = 2**28
"""Entries of the (B, T, V) logits held at once, 1 GiB in fp32; a batch is cut to stay below."""


@dataclass(frozen=True)
class Completion:
    """A prompt and what follows it, as tokens."""

    tokens: tuple[int, ...]
    start: int
    """Index of the first token of the completion, at least 1."""

    @property
    def length(self) -> int:
        """Tokens of the completion, with the template's end of turn."""
        return len(self.tokens) - self.start


def encode(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[Messages, Messages]],
    tools: Sequence[str | None] | None = None,
) -> list[Completion]:
    """Each (prompt, completion) in the chat template, with the tools it may use. The completion is
    what the template adds to the prompt that the model is asked to answer. Without a prompt it is
    plain text, which is in no template.

    Raises:
        ConfigError: the template does not keep that prompt when it is followed by an answer.
    """
    given = tools or [None] * len(pairs)
    before = [
        render(tokenizer, prompt, to_answer=True, tools=known) if prompt else ""
        for (prompt, _), known in zip(pairs, given, strict=True)
    ]
    whole = [
        render(tokenizer, [*prompt, *said], to_answer=False, tools=known)
        if prompt
        else f"{said[0]['content']}{tokenizer.eos_token}"
        for (prompt, said), known in zip(pairs, given, strict=True)
    ]
    for index, (asked, answered) in enumerate(zip(before, whole, strict=True)):
        if not answered.startswith(asked):
            raise ConfigError(
                f"the chat template writes the prompt of row {index} as {asked[-40:]!r} before an "
                "answer but differently above one, so answers cannot be scored; set "
                "model.chat_template to one that does not"
            )
    encoded = zip(tokens_of(tokenizer, before), tokens_of(tokenizer, whole), strict=True)
    # The last token of the prompt may have merged with the answer; then it belongs to the answer.
    return [Completion(tuple(all_), max(1, _shared(asked, all_))) for asked, all_ in encoded]


def token_log_probs(
    subject: Subject, completions: Sequence[Completion], progress: Tick
) -> list[NDArray[np.float64]]:
    """Log-probability of each token of each completion, given its prompt and the tokens before it,
    in nats. N completions -> N of (T,).

    Raises:
        Diverged: one of them is not finite.
    """
    found: list[NDArray[np.float64]] = [np.zeros(0)] * len(completions)
    done, model = 0, subject.model
    with inference(model, subject.precision):
        for batch in _batches(model, completions, subject.batch_size):
            scored = _score(model, [completions[index] for index in batch])
            for index, tokens in zip(batch, scored, strict=True):
                if not np.isfinite(tokens).all():
                    raise diverged("log-probabilities")
                found[index] = tokens
            done += len(batch)
            progress(done, len(completions))
    return found


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _batches(
    model: PreTrainedModel, completions: Sequence[Completion], batch_size: int
) -> Iterator[list[int]]:
    """Indices of batches whose sequences are of similar length and whose logits fit."""
    vocabulary = model.config.get_text_config().vocab_size
    batch: list[int] = []
    first = 0
    for index in longest_first([len(completion.tokens) for completion in completions]):
        start = completions[index].start
        grown = min(first, start) if batch else start
        longest = len(completions[batch[0] if batch else index].tokens)
        logits = (len(batch) + 1) * (longest - grown + 1) * vocabulary
        if batch and (len(batch) == batch_size or logits > LOGITS):
            yield batch
            batch, grown = [], start
        batch, first = [*batch, index], grown
    if batch:
        yield batch


def _score(model: PreTrainedModel, batch: Sequence[Completion]) -> list[NDArray[np.float64]]:
    """Log-probabilities. B completions -> B of (T,)."""
    tokens, mask = padded([completion.tokens for completion in batch], 0, "right")
    # The token before the earliest completion predicts it; nothing further left is needed.
    first = min(completion.start for completion in batch) - 1
    tokens = tokens.to(model.device)
    output = model(
        input_ids=tokens,
        attention_mask=mask.to(model.device),
        use_cache=False,
        logits_to_keep=tokens.size(1) - first,
    )
    # Row by row, so that the float32 log-softmax is of one row's completion and not of (B, T, V).
    return [
        _of_tokens(
            output.logits[row, completion.start - 1 - first : len(completion.tokens) - 1 - first],
            tokens[row, completion.start : len(completion.tokens)],
        )
        for row, completion in enumerate(batch)
    ]


def _of_tokens(logits: torch.Tensor, targets: torch.Tensor) -> NDArray[np.float64]:
    """(T, V), (T,) -> (T,)."""
    per_token: NDArray[np.float64] = (
        -cross_entropy(logits.float(), targets, reduction="none").double()
    ).numpy(force=True)
    return per_token
