"""One model measured on held-out rows, and compared with models that were measured before."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from aligntune.config.slices import EvaluateSlice
from aligntune.data.rows import read_rows
from aligntune.errors import ConfigError, DataError, ResourceError, unknown
from aligntune.evaluate.compare import Column, Measured, Resampling, measure, read_baseline, write
from aligntune.evaluate.forward import Tick
from aligntune.evaluate.generate import Answer, answers
from aligntune.evaluate.metrics import METRICS, Metric, Row, Subject, prompt_of
from aligntune.evaluate.reward import reward_metrics
from aligntune.models.load import load_policy, load_tokenizer

LOG = logging.getLogger(__name__)

UNSCORED_ANSWERS = 32
"""Answers that are generated, for people to read, where no metric scores them."""

Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Evaluated:
    metrics: dict[str, float]
    """Flat: `nll`, `nll/low`, `nll/vs_base`, ..., and what generation cost."""
    facts: dict[str, Any]
    """Rows measured, rows too long per metric, and `verdicts`: baseline -> metric -> verdict."""


def evaluate(
    spec: EvaluateSlice,
    model: Path,
    data: Path,
    out: Path,
    baselines: Mapping[str, Path],
    progress: Progress,
) -> Evaluated:
    """What `model` scores on the first `max_samples` rows of the split, and against `baselines`.

    `baselines` are directories of earlier evaluations by label. `compare` says what is in `out`.

    Raises:
        DataError: the rows do not allow a metric, or a baseline was measured on other ones.
        Diverged: the model computes what is not finite.
        ResourceError: a batch does not fit in the GPU's memory.
    """
    rows = _read(data / f"{spec.split}.parquet", spec.max_samples)
    scored = reward_metrics(spec.rewards, rows)
    metrics = _choose(spec.metrics, rows, optional=bool(scored)) | scored
    conditions = _conditions(spec, rows)
    earlier = {
        label: read_baseline(label, path, conditions, metrics) for label, path in baselines.items()
    }
    subject = _load(spec, model)
    try:
        found, columns, speed = _score(spec, subject, rows, metrics, progress)
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"{spec.batch_size} rows at once do not fit in memory ({error}); lower "
            "evaluation.batch_size"
        ) from error
    how = Resampling(spec.confidence, spec.resamples, spec.seed)
    measured = {
        name: measure(name, metric, columns[name], len(_allowed(metric, rows)), earlier, how)
        for name, metric in metrics.items()
    }
    generation = _generation(found)
    write(out, rows, found, columns, _document(conditions, how, metrics, measured, generation))
    return Evaluated(_flat(measured) | generation | speed, _facts(rows, metrics, measured))


def _read(path: Path, count: int) -> list[Row]:
    if not path.is_file():
        raise DataError(
            f"there is no {path.name} in {path.parent}; set evaluation.datasets, or a larger "
            "evaluation.heldout_fraction"
        )
    rows: list[Row] = list(read_rows(path, count))
    if not rows:
        raise DataError(f"{path} has no rows to measure on; set evaluation.datasets")
    return rows


def _choose(names: Sequence[str], rows: Sequence[Row], *, optional: bool) -> dict[str, Metric]:
    """The metrics that were asked for, or all that some row allows."""
    columns = ", ".join(rows[0])
    for name in names:
        if name not in METRICS:
            raise ConfigError(unknown("metric", name, METRICS))
        if not _allowed(METRICS[name], rows):
            raise DataError(
                f"metric {name!r} needs rows with {' and '.join(METRICS[name].columns)}, and no "
                f"held-out row has them (columns: {columns}); remove it from evaluation.metrics or "
                "set evaluation.datasets"
            )
    chosen = {
        name: metric
        for name, metric in METRICS.items()
        if (name in names if names else _allowed(metric, rows))
    }
    if not chosen and not optional:
        raise DataError(
            f"the held-out rows (columns: {columns}) allow none of {', '.join(METRICS)}; set "
            "evaluation.datasets, or rewards to measure"
        )
    return chosen


def _allowed(metric: Metric, rows: Sequence[Row]) -> list[int]:
    return [index for index, row in enumerate(rows) if metric.allows(row)]


def _conditions(spec: EvaluateSlice, rows: Sequence[Row]) -> dict[str, Any]:
    """What two evaluations must share for their scores to be compared."""
    canonical = json.dumps(rows, sort_keys=True, separators=(",", ":"))
    return {
        "rows": len(rows),
        "rows_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "max_new_tokens": spec.max_new_tokens,
        "max_length": spec.max_length,
    }


def _load(spec: EvaluateSlice, path: Path) -> Subject:
    model = load_policy(path, trust_remote_code=spec.trust_remote_code)
    tokenizer = load_tokenizer(path, trust_remote_code=spec.trust_remote_code)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return Subject(model, tokenizer, spec.precision, spec.batch_size, spec.max_length)


def _score(
    spec: EvaluateSlice,
    subject: Subject,
    rows: Sequence[Row],
    metrics: Mapping[str, Metric],
    progress: Progress,
) -> tuple[list[Answer | None], dict[str, Column], dict[str, float]]:
    """(answers, metric -> score per row, speed of generation)."""
    generates = any(metric.generates for metric in metrics.values())
    asked = len(rows) if generates else min(len(rows), UNSCORED_ANSWERS)
    usable = {name: _allowed(metric, rows) for name, metric in metrics.items()}
    passes = {name: 0 if metric.generates else metric.passes for name, metric in metrics.items()}
    total = asked + sum(passes[name] * len(usable[name]) for name in metrics)
    shown: dict[str, float] = {}
    done = 0

    def tick_from(base: int) -> Tick:
        return lambda here, _: progress(base + here, total, shown)

    started = perf_counter()
    found = _answers(spec, subject, rows[:asked], tick_from(done))
    tokens = sum(answer.tokens for answer in found if answer)
    speed = {"tokens_per_second": tokens / (perf_counter() - started)} if tokens else {}
    found += [None] * (len(rows) - asked)
    shown.update(speed)
    done += asked
    columns: dict[str, Column] = {}
    for name, metric in metrics.items():
        indices = usable[name]
        subset, answered = [rows[i] for i in indices], [found[i] for i in indices]
        scores = metric.score(subject, subset, answered, tick_from(done))
        by_row = dict(zip(indices, scores, strict=True))
        columns[name] = [by_row.get(index) for index in range(len(rows))]
        done += passes[name] * len(indices)
        scored = [score for score in scores if score is not None]
        shown.update({name: sum(scored) / len(scored)} if scored else {})
        progress(done, total, shown)
    return found, columns, speed


def _answers(
    spec: EvaluateSlice, subject: Subject, rows: Sequence[Row], tick: Tick
) -> list[Answer | None]:
    return answers(
        subject.model,
        subject.tokenizer,
        [prompt_of(row) for row in rows],
        max_new_tokens=spec.max_new_tokens,
        batch_size=spec.batch_size,
        progress=tick,
        precision=spec.precision,
        max_length=spec.max_length,
        tools=[row.get("tools") for row in rows],
    )


def _generation(found: Sequence[Answer | None]) -> dict[str, float]:
    written = [answer for answer in found if answer]
    if not written:
        return {}
    return {
        "mean_answer_tokens": sum(answer.tokens for answer in written) / len(written),
        "finished_rate": sum(answer.finished for answer in written) / len(written),
    }


def _flat(measured: Mapping[str, Measured]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, result in measured.items():
        interval = result.interval
        flat[name] = interval.mean
        flat[f"{name}/low"], flat[f"{name}/high"] = interval.low, interval.high
        flat[f"{name}/count"] = float(interval.count)
        for label, difference in result.against.items():
            flat[f"{name}/vs_{label}"] = difference.difference
            flat[f"{name}/vs_{label}_low"] = difference.low
            flat[f"{name}/vs_{label}_high"] = difference.high
    return flat


def _facts(
    rows: Sequence[Row], metrics: Mapping[str, Metric], measured: Mapping[str, Measured]
) -> dict[str, Any]:
    verdicts: dict[str, dict[str, str]] = {}
    for name, result in measured.items():
        if result.unscored:
            what = metrics[name].unscored
            LOG.warning("%s: %d rows got no score: none %s", name, result.unscored, what)
        for label, difference in result.against.items():
            verdicts.setdefault(label, {})[name] = difference.verdict
    unscored = {name: result.unscored for name, result in measured.items()}
    return {"rows": len(rows), "unscored": unscored, "verdicts": verdicts}


def _document(
    conditions: Mapping[str, Any],
    how: Resampling,
    metrics: Mapping[str, Metric],
    measured: Mapping[str, Measured],
    generation: Mapping[str, float],
) -> dict[str, Any]:
    """`evaluation.json`. Nothing in it depends on the machine's speed."""
    return {
        "format": 1,
        "conditions": dict(conditions),
        "intervals": asdict(how),
        "generation": dict(generation),
        "metrics": {
            name: {
                "higher_is_better": metrics[name].higher_is_better,
                "unscored": result.unscored,
                **asdict(result.interval),
                "against": {label: asdict(found) for label, found in result.against.items()},
            }
            for name, result in measured.items()
        },
    }
