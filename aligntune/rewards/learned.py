"""Rewards that a model gives: a reward model's score, or a classifier's probability of a label."""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from aligntune.errors import ConfigError
from aligntune.models.chat import render
from aligntune.models.intake import read_json
from aligntune.rewards.pretrained import positions, present, tokenizer_of, weights_of
from aligntune.rewards.types import Sample, Scorer

NORMALIZATION = "reward_normalization.json"
"""The file beside a reward model that says how to bring its scores to mean 0 and deviation 1."""


def judge(name: str, device: str, called: str, params: Mapping[str, Any]) -> Scorer:
    """A scorer, `called` so, with the model in the directory `name`, loaded at the first call.

    A model with one output gives its raw score, others the probability of the label in `params`:
    by softmax, or by sigmoid where the model says that its labels do not exclude each other.
    The start of what is too long is cut off. With `normalize` in `params`, a score is brought to
    the scale on which reference answers have mean 0 and standard deviation 1.

    Raises ConfigError for a device that is not there.
    """
    normalize = params["normalize"]
    loaded = cache(partial(_Judge, name, present(device), params["label"], normalize=normalize))

    def score(samples: Sequence[Sample]) -> list[float | None]:
        return loaded().scores(samples, params["batch_size"])

    score.__name__ = called
    return score


class _Judge:
    def __init__(self, name: str, device: torch.device, label: str, *, normalize: bool) -> None:
        self._mean, self._std = _normalization(name) if normalize else (0.0, 1.0)
        self._tokenizer = tokenizer_of(name, truncation_side="left")
        config = AutoConfig.from_pretrained(name)
        model, missing = weights_of(AutoModelForSequenceClassification, name, "reward model")
        if missing:
            raise ConfigError(
                f"reward model {name!r} has no weights for {missing[0]}, and a random "
                "head scores nothing; train a reward model first"
            )
        self._model = model.to(device).eval()
        self._label = _index(config, name, label)
        if self._model.config.pad_token_id is None:
            self._model.config.pad_token_id = self._tokenizer.pad_token_id
        several = config.problem_type == "multi_label_classification"
        self._probabilities = torch.sigmoid if several else partial(torch.softmax, dim=-1)
        self._longest = min(self._tokenizer.model_max_length, positions(self._model))

    @torch.no_grad()
    def scores(self, samples: Sequence[Sample], batch_size: int) -> list[float | None]:
        texts = [self._text(sample) for sample in samples]
        found: list[float | None] = []
        for start in range(0, len(texts), batch_size):
            batch = self._tokenizer(
                texts[start : start + batch_size],
                padding=True,
                truncation=True,
                max_length=self._longest,
                return_tensors="pt",
                add_special_tokens=self._tokenizer.chat_template is None,
            ).to(self._model.device)
            logits = self._model(**batch).logits.float()
            rows = (
                logits[:, 0] if self._label is None else self._probabilities(logits)[:, self._label]
            )
            found += ((rows - self._mean) / self._std).tolist()
        return found

    def _text(self, sample: Sample) -> str:
        if self._tokenizer.chat_template is None:
            return f"{sample.prompt}\n\n{sample.completion}"
        asked = sample.conversation or [{"role": "user", "content": sample.prompt}]
        answer = {"role": "assistant", "content": sample.completion}
        return render(self._tokenizer, [*asked, answer], to_answer=False)


def _normalization(name: str) -> tuple[float, float]:
    """(mean, standard deviation) of the reference answers' scores."""
    file = Path(name) / NORMALIZATION
    if not file.is_file():
        raise ConfigError(
            f"reward model {name!r} has no {NORMALIZATION}, so its scores cannot be normalised; "
            "remove `normalize`, or use a reward model that a run has trained"
        )
    found = read_json(file)
    mean, std = (found.get(key) for key in ("mean", "std"))
    if not isinstance(mean, int | float) or not isinstance(std, int | float) or not std > 0:
        raise ConfigError(
            f"{file} has no `mean` and no `std` above 0; write both, or remove `normalize`"
        )
    return float(mean), float(std)


def _index(config: Any, name: str, label: str) -> int | None:
    if config.num_labels == 1:
        return None
    labels = {text.lower(): int(index) for index, text in config.id2label.items()}
    if label.lower() not in labels:
        raise ConfigError(
            f"reward model {name!r} has the labels {', '.join(labels)}; say which one is rewarded "
            "with `params: {label: ...}`"
        )
    return labels[label.lower()]
