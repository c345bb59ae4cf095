"""A trained reward model measured on the rows that were held out of its data."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from aligntune.config.slices import TrainSlice
from aligntune.data import tokens
from aligntune.data.rows import read_rows
from aligntune.errors import DataError
from aligntune.evaluate import reward_model_scores as scores
from aligntune.evaluate.compare import units_of
from aligntune.heartbeat import Progress
from aligntune.models.load import check_whole, read_weights, reading


@dataclass(frozen=True)
class Measured:
    metrics: dict[str, float]
    bins: list[scores.Bin]
    """Of pairs; empty for scores."""
    normalization: dict[str, float]
    """Mean and standard deviation of the reference answers' scores."""


def check_heldout(data: Path) -> None:
    """Raises DataError where there is nothing to measure a reward model on."""
    if not (data / "heldout.parquet").is_file():
        raise DataError(
            "no row is held out to measure the reward model on; raise `eval_fraction` of one of "
            "reward_model.datasets, or name its `eval_split`"
        )


def measure(
    model: Path,
    data: Path,
    spec: TrainSlice,
    wanted: Callable[[Path], list[float]],
    progress: Progress,
) -> Measured:
    """What the model in `model` makes of the held-out rows in `data`, of which `wanted` reads the
    scores that they have, for a regression.

    Raises:
        DataError: it scores all reference answers alike.
        Diverged: a score is not finite.
    """
    scorer = _load(model, trust_remote_code=spec.trust_remote_code)
    rows = tokens.read(data / "heldout.tokens.parquet").column(0).to_pylist()
    longest = spec.train.max_length or 0
    # As in training, and as the judge of a run does it: the end of what is too long.
    sequences = [one["ids"][-longest:] for row in _asked(rows, spec) for one in row]
    lengths = [len(one["ids"]) - one["start"] for row in _asked(rows, spec) for one in row]
    found = np.array(
        scores.score_sequences(
            scorer,
            sequences,
            batch_size=spec.train.per_device_batch_size,
            progress=lambda done, total: progress(done, total, {}),
        )
    )
    heldout = data / "heldout.parquet"
    prompts = units_of(list(read_rows(heldout)))
    if spec.objective == "regression":
        known = np.array(wanted(heldout))
        metrics, bins = scores.of_scores(found, known, lengths, prompts, spec.seed)
        return Measured(metrics, bins, scores.normalization(found.tolist()))
    chosen, rejected = found[::2], found[1::2]
    sides = lengths[::2], lengths[1::2]
    metrics, bins = scores.of_pairs(chosen, rejected, sides, prompts, spec.seed)
    return Measured(metrics, bins, scores.normalization(chosen.tolist()))


def _asked(rows: list[list[Any]], spec: TrainSlice) -> list[list[Any]]:
    return [row[-1:] for row in rows] if spec.objective == "regression" else rows


def _load(path: Path, *, trust_remote_code: bool) -> PreTrainedModel:
    with reading(f"reward model {path}"):
        model, report = read_weights(
            AutoModelForSequenceClassification, path, trust_remote_code=trust_remote_code
        )
    check_whole(report, f"reward model {path}")
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return model
