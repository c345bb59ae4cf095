"""How well a reward model tells the better of two answers, and what else it goes by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from aligntune.errors import DataError
from aligntune.evaluate.forward import Tick, diverged, inference, longest_first, padded
from aligntune.evaluate.resample import Scores
from aligntune.evaluate.stats import mean_by_prompt, mean_interval

CONFIDENCE = 0.95
RESAMPLES = 10_000
BINS = 10
ALIKE = 0.1
"""Answers whose lengths differ by less than this share of the longer one are of similar length."""
SIDES = ("chosen_longer", "chosen_shorter", "similar_length")


@dataclass(frozen=True)
class Bin:
    """Pairs whose better answer the model was about as sure of."""

    confidence: float
    """The mean probability that it gave to the answer that it prefers."""
    accuracy: float
    """How often that answer is the chosen one."""
    count: int


def score_sequences(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    *,
    batch_size: int,
    progress: Tick,
) -> list[float]:
    """The score of each token sequence by a model with one output, which pads on the right; in
    fp32, as it judges in a run: rounded scores of a pair are often the same.

    Raises:
        Diverged: a score is not finite.
    """
    pad = model.config.get_text_config().pad_token_id
    found: list[float] = [0.0] * len(sequences)
    order = longest_first([len(sequence) for sequence in sequences])
    with inference(model, "fp32"):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids, mask = padded([sequences[index] for index in chosen], pad, "right")
            device = model.device
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
            if not torch.isfinite(logits).all():
                raise diverged("scores")
            for index, score in zip(chosen, logits[:, 0].float().tolist(), strict=True):
                found[index] = score
            progress(start + len(chosen), len(order))
    return found


def of_pairs(
    chosen: Scores,
    rejected: Scores,
    lengths: tuple[Sequence[int], Sequence[int]],
    prompts: Sequence[int],
    seed: int,
) -> tuple[dict[str, float], list[Bin]]:
    """What the scores of pairs, (N,) each, say: accuracy, margin, calibration, and accuracy by
    which answer is longer; `lengths` are those of the chosen and of the rejected answers.

    A pair that is scored alike counts half. What has an interval is a mean over prompts, each the
    mean of its pairs, since these are not independent: `prompts` numbers the prompt of each pair.
    """
    margin = chosen - rejected
    right = np.where(margin == 0, 0.5, margin > 0).astype(np.float64)
    longer, shorter = (np.asarray(side, dtype=np.float64) for side in lengths)
    sides, asked = _sides(longer, shorter), np.asarray(prompts, dtype=np.int64)
    found = {
        **_interval("accuracy", right, asked, seed),
        **_interval("margin", margin, asked, seed),
        "log_loss": float(np.logaddexp(0, -margin).mean()),
        **{
            name: value
            for side in SIDES
            for name, value in _side(side, right[sides == side], asked[sides == side], seed).items()
        },
        "longer_wins": float((np.sign(longer - shorter) / 2 + 0.5).mean()),
        "length_correlation": correlation(margin, longer - shorter),
        "chosen_mean": float(chosen.mean()),
        "rejected_mean": float(rejected.mean()),
        **spread(np.concatenate([chosen, rejected])),
    }
    bins = reliability(margin)
    error = sum(bin.count * abs(bin.accuracy - bin.confidence) for bin in bins) / len(margin)
    return found | {"ece": error}, bins


def of_scores(
    found: Scores, wanted: Scores, lengths: Sequence[int], prompts: Sequence[int], seed: int
) -> tuple[dict[str, float], list[Bin]]:
    """How near scores are to those that they should be, (N,) each; `prompts` as in `of_pairs`."""
    error = found - wanted
    plain = float(wanted.var()) or 1.0
    return {
        **_interval("squared_error", error**2, np.asarray(prompts, dtype=np.int64), seed),
        "absolute_error": float(np.abs(error).mean()),
        "r2": 1 - float((error**2).mean()) / plain,
        "correlation": correlation(found, wanted),
        "length_correlation": correlation(found, np.asarray(lengths, dtype=np.float64)),
        **spread(found),
    }, []


def reliability(margin: Scores) -> list[Bin]:
    """Pairs by how sure the model is of its order: sigmoid(|margin|), in bins from 0.5 to 1."""
    sure = 1 / (1 + np.exp(-np.abs(margin)))
    right = np.where(margin == 0, 0.5, margin > 0)
    place = np.minimum(((sure - 0.5) * 2 * BINS).astype(int), BINS - 1)
    return [
        Bin(float(sure[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in (place == number for number in range(BINS))
        if inside.any()
    ]


def correlation(one: Scores, other: Scores) -> float:
    """Pearson's; 0 where one of them does not vary."""
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def normalization(reference: Sequence[float]) -> dict[str, float]:
    """What brings the scores of reference answers to mean 0 and standard deviation 1.

    Raises:
        DataError: they do not differ.
    """
    scores = np.asarray(reference, dtype=np.float64)
    std = float(scores.std())
    if not std > 0:
        raise DataError(
            f"the reward model scores all {len(scores)} held-out reference answers alike, so it "
            "cannot be normalised; train it for longer, or hold out more of its data"
        )
    return {"mean": float(scores.mean()), "std": std, "count": len(scores)}


def spread(scores: Scores) -> dict[str, float]:
    return {"score_mean": float(scores.mean()), "score_std": float(scores.std())}


def _sides(chosen: NDArray[np.float64], rejected: NDArray[np.float64]) -> NDArray[np.str_]:
    """By pair, the name in SIDES of how the lengths compare."""
    near = np.abs(chosen - rejected) <= ALIKE * np.maximum(chosen, rejected)
    return np.where(near, SIDES[2], np.where(chosen > rejected, SIDES[0], SIDES[1]))


def _side(side: str, right: Scores, prompts: NDArray[np.int64], seed: int) -> Mapping[str, float]:
    return _interval(f"accuracy/{side}", right, prompts, seed) if len(right) else {}


def _interval(name: str, scores: Scores, prompts: NDArray[np.int64], seed: int) -> dict[str, float]:
    scores = mean_by_prompt(scores, prompts)
    found = mean_interval(scores, confidence=CONFIDENCE, resamples=RESAMPLES, seed=seed)
    return {
        name: found.mean,
        f"{name}/low": found.low,
        f"{name}/high": found.high,
        f"{name}/count": float(found.count),
    }
