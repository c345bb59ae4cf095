"""One model measured on held-out rows, and compared with models that were measured before."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from aligntune.config.slices import EvaluateSlice
from aligntune.errors import ConfigError, DataError, ResourceError, unknown
from aligntune.evaluate import harness
from aligntune.evaluate.allowed import held_out, refuse
from aligntune.evaluate.cache import Cache
from aligntune.evaluate.compare import (
    Column,
    Resampling,
    measure,
    read_baseline,
    units_of,
    write,
)
from aligntune.evaluate.document import document, facts, flat
from aligntune.evaluate.forward import Tick, at_each_pass
from aligntune.evaluate.generate import Answer, answers
from aligntune.evaluate.metrics import METRICS
from aligntune.evaluate.reward import reward_metrics
from aligntune.evaluate.types import Metric, Row, Score, Subject, prompt_of
from aligntune.heartbeat import Progress
from aligntune.models.load import load_policy, load_tokenizer

LOG = logging.getLogger(__name__)

UNSCORED_ANSWERS = 32
"""Answers that are generated, for people to read, where no metric scores them."""


@dataclass(frozen=True)
class Evaluated:
    metrics: dict[str, float]
    """Flat: `nll`, `nll/low`, `nll/vs_base`, ..., and what generation cost."""
    facts: dict[str, Any]
    """Rows measured, rows too long per metric, and `verdicts`: baseline -> metric -> verdict."""


@dataclass(frozen=True)
class Models:
    """What an evaluation reads besides the rows."""

    model: Path
    reference: Path | None = None
    """The model that training started from; None for that one itself."""
    baselines: Mapping[str, Path] | None = None
    """Directories of earlier evaluations, by label."""
    cache: Cache | None = None


def evaluate(
    spec: EvaluateSlice, models: Models, data: Path, out: Path, progress: Progress
) -> Evaluated:
    """What the model scores on the first `max_samples` rows of the split, and against baselines.

    `compare` says what is in `out`.

    Raises:
        DataError: the rows do not allow a metric, or a baseline was measured on other ones.
        Diverged: the model computes what is not finite.
        ResourceError: a batch does not fit in the GPU's memory.
    """
    rows = held_out(data / f"{spec.split}.parquet", spec.max_samples)
    subject = _load(spec, models)
    scored = reward_metrics(spec.rewards, rows, models.cache)
    chosen = _choose(spec.metrics, rows, optional=bool(scored), reference=bool(subject.reference))
    metrics = chosen | scored
    conditions, tokens = _conditions(spec, rows), _tokens(subject)
    earlier = {
        label: read_baseline(label, path, conditions, metrics, tokens)
        for label, path in (models.baselines or {}).items()
    }
    try:
        asked = _asked(spec, rows, metrics)
        total = asked + _passes(rows, metrics, asked)
        found, speed = _answers(
            spec, subject, rows[:asked], models.cache, lambda done, _: progress(done, total, {})
        )
        found += [None] * (len(rows) - asked)

        def tell(done: int, shown: Mapping[str, float]) -> None:
            progress(asked + done, total, speed | dict(shown))

        columns = _score(subject, rows, metrics, found, tell, models.cache)
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"{spec.batch_size} rows at once do not fit in memory ({error}); lower "
            "evaluation.batch_size"
        ) from error
    how = Resampling(spec.confidence, spec.resamples, spec.seed)
    units = units_of(rows)
    measured = {
        name: measure(
            name, metric, columns[name], len(_judged(metric, rows, found)), units, earlier, how
        )
        for name, metric in metrics.items()
        if name in spec.metrics or not metric.diagnostic or any(_there(columns[name]))
    }
    told = {name: columns[name] for name in measured if not metrics[name].geometric}
    if spec.lm_eval:
        baselines = models.baselines or {}
        with at_each_pass(subject.model, lambda: progress(total, total, speed)):
            tasks, scores = harness.measured(spec.lm_eval, subject, out, baselines, how)
        metrics, measured = metrics | tasks, measured | scores
    write(out, rows, found, told, document(conditions, tokens, how, metrics, measured))
    return Evaluated(flat(measured) | speed, facts(rows, metrics, measured))


def _choose(
    names: Sequence[str], rows: Sequence[Row], *, optional: bool, reference: bool
) -> dict[str, Metric]:
    """The metrics that were asked for, or all that some row allows."""
    columns = ", ".join(rows[0])
    for name in names:
        if name not in METRICS:
            raise ConfigError(unknown("metric", name, METRICS))
    refuse(names, rows)
    possible = {n: metric for n, metric in METRICS.items() if reference or not metric.against_base}
    chosen = {
        name: metric
        for name, metric in possible.items()
        if (name in names if names else _allowed(metric, rows))
    }
    if not names and not optional and all(metric.diagnostic for metric in chosen.values()):
        quality = [name for name, metric in METRICS.items() if not metric.diagnostic]
        raise DataError(
            f"the held-out rows (columns: {columns}) allow none of {', '.join(quality)}; set "
            "evaluation.datasets, or rewards to measure"
        )
    return chosen


def _allowed(metric: Metric, rows: Sequence[Row]) -> list[int]:
    return [index for index, row in enumerate(rows) if metric.allows(row)]


def _judged(metric: Metric, rows: Sequence[Row], found: Sequence[Answer | None]) -> list[int]:
    """The rows that a metric is for; a diagnostic one is for those that were answered."""
    if metric.diagnostic and metric.generates:
        return [index for index in _allowed(metric, rows) if found[index]]
    return _allowed(metric, rows)


def _there(column: Column) -> list[bool]:
    return [score is not None for score in column]


def _conditions(spec: EvaluateSlice, rows: Sequence[Row]) -> dict[str, Any]:
    """What two evaluations must share for their scores to be compared."""
    canonical = json.dumps(rows, sort_keys=True, separators=(",", ":"))
    return {
        "rows": len(rows),
        "rows_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "max_new_tokens": spec.max_new_tokens,
        "max_length": spec.max_length,
    }


def _tokens(subject: Subject) -> str:
    """Digest of what the model's tokens are."""
    vocabulary = json.dumps(sorted(subject.tokenizer.get_vocab().items()))
    return hashlib.sha256(vocabulary.encode()).hexdigest()


def _load(spec: EvaluateSlice, models: Models) -> Subject:
    trust = spec.trust_remote_code
    model = load_policy(models.model, trust_remote_code=trust)
    tokenizer = load_tokenizer(models.model, trust_remote_code=trust)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    reference = models.reference
    if reference:
        other = load_tokenizer(reference, trust_remote_code=trust)
        if other.get_vocab() != tokenizer.get_vocab():
            LOG.warning("kl_to_base is left out: the two models have different tokens")
            reference = None
    return Subject(
        model, tokenizer, spec.precision, spec.batch_size, spec.max_length, reference, trust
    )


def _asked(spec: EvaluateSlice, rows: Sequence[Row], metrics: Mapping[str, Metric]) -> int:
    """How many rows the model answers, from the first: all, or a few for people to read."""
    needed = any(
        metric.generates and (name in spec.metrics or not metric.diagnostic)
        for name, metric in metrics.items()
    )
    return len(rows) if needed else min(len(rows), UNSCORED_ANSWERS)


def _passes(rows: Sequence[Row], metrics: Mapping[str, Metric], answered: int) -> int:
    """How many sequences the metrics send through a model."""
    each = {metric.score: metric for metric in metrics.values()}.values()
    judged = sum(m.passes * len(_allowed(m, rows)) for m in each if not m.generates)
    return judged + sum(m.passes * answered for m in each if m.against_base)


def _answers(
    spec: EvaluateSlice,
    subject: Subject,
    rows: Sequence[Row],
    cache: Cache | None,
    tick: Tick,
) -> tuple[list[Answer | None], dict[str, float]]:
    """The answer to each row, and the speed at which they were generated."""
    prompts = [prompt_of(row) for row in rows]
    tools = [row.get("tools") for row in rows]

    def generate() -> tuple[list[Answer | None], float]:
        started = perf_counter()
        made = answers(
            subject.model,
            subject.tokenizer,
            prompts,
            max_new_tokens=spec.max_new_tokens,
            batch_size=spec.batch_size,
            progress=tick,
            precision=spec.precision,
            max_length=spec.max_length,
            tools=tools,
        )
        return made, perf_counter() - started

    settings = {"max_new_tokens": spec.max_new_tokens, **_settings(subject)}
    questions = list(zip(prompts, tools, strict=True))
    found, seconds = cache.answers(settings, questions, generate) if cache else generate()
    tokens = sum(answer.tokens for answer in found if answer)
    return found, {"tokens_per_second": tokens / seconds} if tokens else {}


def _settings(subject: Subject) -> dict[str, Any]:
    """What a forward pass depends on besides the model and the tokens."""
    return {
        "batch_size": subject.batch_size,
        "precision": subject.precision,
        "max_length": subject.max_length,
        "device": subject.model.device.type,
    }


def _scores(
    subject: Subject,
    metric: Metric,
    rows: Sequence[Row],
    answers: Sequence[Answer | None],
    tick: Tick,
    cache: Cache | None,
) -> list[float | None]:
    """A score for each of the rows; those that a model gives are given once."""

    def score() -> list[float | None]:
        return metric.score(subject, rows, answers, tick)

    if cache is None or not metric.kept:
        return score()
    written = [answer.ids if answer else None for answer in answers] if metric.generates else None
    return cache.of_subject(
        metric.score.__name__, _settings(subject), [[dict(row) for row in rows], written], score
    )


def _score(
    subject: Subject,
    rows: Sequence[Row],
    metrics: Mapping[str, Metric],
    found: Sequence[Answer | None],
    tell: Callable[[int, Mapping[str, float]], None],
    cache: Cache | None,
) -> dict[str, Column]:
    """Metric -> score per row. `tell` hears of the sequences that are done, and of means."""
    shown: dict[str, float] = {}
    done = 0
    raw: dict[Score, dict[int, float | None]] = {}
    columns: dict[str, Column] = {}

    def tick_from(base: int) -> Tick:
        return lambda here, _: tell(base + here, shown)

    for name, metric in metrics.items():
        if metric.score not in raw:
            indices = _judged(metric, rows, found)
            subset, answered = [rows[i] for i in indices], [found[i] for i in indices]
            scores = _scores(subject, metric, subset, answered, tick_from(done), cache)
            raw[metric.score] = dict(zip(indices, scores, strict=True))
            done += _passes(subset, {name: metric}, len(indices))
        by_row = raw[metric.score]
        values = [by_row.get(index) for index in range(len(rows))]
        columns[name] = [None if value is None else metric.of(value) for value in values]
        known = [score for score in columns[name] if score is not None]
        if known and not metric.diagnostic:
            shown[name] = sum(known) / len(known)
        tell(done, shown)
    return columns
