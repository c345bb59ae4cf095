"""How close an answer is in meaning to the row's reference, by a model of sentence embeddings."""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel

from aligntune.errors import ConfigError
from aligntune.rewards.pretrained import positions, present, tokenizer_of, weights_of
from aligntune.rewards.types import Sample, Scorer


def judge(name: str, device: str, called: str, params: Mapping[str, Any]) -> Scorer:
    """The cosine, in [-1, 1], between the embeddings of answer and reference.

    An embedding is the mean of the last hidden states over a text's tokens, which is what models
    such as all-MiniLM-L6-v2 were trained for; the end of what is too long is cut off. A wrong
    answer in the reference's words comes close too. 0 for an empty answer; None for a row without
    a reference. The model in the directory `name` is loaded at the first call.

    Raises ConfigError for a device that is not there.
    """
    loaded = cache(partial(_Encoder, name, present(device)))

    def score(samples: Sequence[Sample]) -> list[float | None]:
        known = loaded().embedded(_texts(samples), params["batch_size"])
        return [_cosine(sample, known) for sample in samples]

    score.__name__ = called
    return score


def _texts(samples: Sequence[Sample]) -> list[str]:
    """What is to be embedded, each text once."""
    judged = [sample for sample in samples if sample.answer and sample.completion.strip()]
    both = (text for sample in judged for text in (sample.completion, sample.answer or ""))
    return list(dict.fromkeys(both))


def _cosine(sample: Sample, known: Mapping[str, Tensor]) -> float | None:
    if not sample.answer:
        return None
    if not sample.completion.strip():
        return 0.0
    return float(known[sample.completion] @ known[sample.answer])


class _Encoder:
    def __init__(self, name: str, device: torch.device) -> None:
        self._tokenizer = tokenizer_of(name)
        model, missing = weights_of(AutoModel, name, "embedding model")
        if needed := [key for key in missing if "pooler" not in key]:
            raise ConfigError(
                f"embedding model {name!r} has no weights for {needed[0]}; name another one"
            )
        self._model = model.to(device).eval()
        self._longest = min(self._tokenizer.model_max_length, positions(self._model))

    @torch.no_grad()
    def embedded(self, texts: Sequence[str], batch_size: int) -> dict[str, Tensor]:
        """Each text's embedding, of length 1: text -> (H,)."""
        found: dict[str, Tensor] = {}
        ordered = sorted(texts, key=len)
        for start in range(0, len(ordered), batch_size):
            some = ordered[start : start + batch_size]
            batch = self._tokenizer(
                some,
                padding=True,
                truncation=True,
                max_length=self._longest,
                return_tensors="pt",
            ).to(self._model.device)
            states = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"][:, :, None].to(states.dtype)
            means = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            found |= zip(some, torch.nn.functional.normalize(means, dim=1).cpu(), strict=True)
        return found
