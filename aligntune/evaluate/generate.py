"""Greedy answers to prompts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from aligntune.config.model import Precision
from aligntune.evaluate.forward import (
    Tick,
    diverged,
    inference,
    longest_first,
    longest_sequence,
    padded,
    tokens_of,
)
from aligntune.models.chat import Messages, render


@dataclass(frozen=True)
class Answer:
    text: str
    """Without special tokens, and without white space around it."""
    tokens: int
    """Generated tokens, with the one that ends the answer."""
    finished: bool
    """Whether the model ended the answer; else it was cut at `max_new_tokens`."""
    ids: tuple[int, ...] = field(default=(), compare=False)
    """The generated tokens themselves."""


class _Finite(LogitsProcessor):  # type: ignore[misc]
    """Stops where a greedy choice would take the first NaN for the best token."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if torch.isnan(scores).any():
            raise diverged("next-token scores")
        return scores


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Messages],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Tick,
    precision: Precision = "fp32",
    max_length: int | None = None,
    tools: Sequence[str | None] | None = None,
) -> list[Answer | None]:
    """The model's most likely continuation of each prompt, in the order of `prompts`.

    `tools` are what may be used for each. A prompt of more than `max_length` tokens, an empty one,
    or one that leaves less than `max_new_tokens` of the model's positions, gets None. Sampling
    settings that the model was saved with do not apply.
    """
    ids = prompt_tokens(tokenizer, prompts, tools)
    positions = longest_sequence(model, None)
    found: list[Answer | None] = [None] * len(prompts)
    order = [
        index
        for index in longest_first([len(tokens) for tokens in ids])
        if prompts[index]
        and (max_length is None or len(ids[index]) <= max_length)
        and (positions is None or len(ids[index]) + max_new_tokens <= positions)
    ]
    greedy = _greedy(model, tokenizer, max_new_tokens)
    with inference(model, precision), _only(model, greedy):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            written = _continue(model, greedy, [ids[index] for index in batch])
            for index, tokens in zip(batch, written, strict=True):
                found[index] = _answer(tokenizer, tokens, greedy.eos_token_id)
            progress(start + len(batch), len(order))
    return found


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Messages],
    tools: Sequence[str | None] | None = None,
) -> list[list[int]]:
    """What is continued for each prompt; nothing for an empty one."""
    texts = [
        render(tokenizer, prompt, to_answer=True, tools=known) if prompt else ""
        for prompt, known in zip(prompts, tools or [None] * len(prompts), strict=True)
    ]
    return tokens_of(tokenizer, texts)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends an answer, by the model's generation config or the tokenizer."""
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None})


def _greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int
) -> GenerationConfig:
    ends = end_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        eos_token_id=ends,
        pad_token_id=pad if pad is not None else (ends or [0])[0],
    )


@contextmanager
def _only(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """`generate` fills what its config leaves open (a repetition penalty, say) from the model's."""
    saved = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = saved


def _continue(
    model: PreTrainedModel, greedy: GenerationConfig, prompts: Sequence[list[int]]
) -> list[list[int]]:
    """What the model writes after each prompt, padded on the right. B prompts -> (B, new T)."""
    tokens, mask = padded(prompts, greedy.pad_token_id, "left")
    output = model.generate(
        input_ids=tokens.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=greedy,
        logits_processor=LogitsProcessorList([_Finite()]),
    )
    written: list[list[int]] = output[:, tokens.size(1) :].tolist()
    return written


def _answer(tokenizer: PreTrainedTokenizerBase, tokens: list[int], ends: list[int]) -> Answer:
    end = next((index for index, token in enumerate(tokens) if token in ends), None)
    text = tokenizer.decode(
        tokens[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    written = tuple(tokens if end is None else tokens[: end + 1])
    return Answer(text.strip(), len(written), end is not None, written)
