"""What several runs answered to the same prompts."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from aligntune.compare.history import PastRun
from aligntune.compare.measures import Evaluation, evaluation
from aligntune.report.compared import Asked, Given


def asked(runs: Sequence[PastRun], count: int) -> tuple[tuple[Asked, ...], tuple[Asked, ...]]:
    """(the first `count` prompts, the `count` others on which answers are furthest apart).

    Prompts that only one run was asked are not among them.
    """
    tables = {
        number: _rows(found)
        for number, run in enumerate(runs)
        if (found := evaluation(run)) is not None
    }
    shared = _shared(tables)
    first = shared[:count]
    others = sorted(shared[count:], key=_apart, reverse=True)
    return tuple(first), tuple(row for row in others[:count] if _apart(row) > (0.0, 0.0))


def _rows(found: Evaluation) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    path = found.folder / "predictions.parquet"
    names = ["prompt", "reference", "completion", *found.metrics]
    schema = pq.read_schema(path)
    rows = pq.read_table(path, columns=[name for name in names if name in schema.names])
    listed: list[dict[str, Any]] = rows.to_pylist()
    scored = [name for name in found.metrics if name in schema.names]
    for row in listed:
        row["scores"] = {name: row[name] for name in scored if row[name] is not None}
    return listed


def _shared(tables: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[Asked]:
    """By the prompt's text, because runs may have been asked different ones."""
    prompts: dict[tuple[tuple[str, str], ...], Asked] = {}
    for number, rows in tables.items():
        for row in rows:
            if row["completion"] is None:
                continue
            key = tuple((turn["role"], turn["content"]) for turn in row["prompt"])
            given = {number: Given(row["completion"], row["scores"])}
            before = prompts.get(key)
            answers = {**before.answers, **given} if before else given
            prompts[key] = Asked(row["prompt"], row["reference"], answers)
    return [row for row in prompts.values() if len(row.answers) > 1]


def _apart(row: Asked) -> tuple[float, float]:
    """(largest difference of a score between 0 and 1, share of words that two answers do not
    share)."""
    answers = list(row.answers.values())
    spread = 0.0
    for metric in answers[0].scores:
        scores = [answer.scores[metric] for answer in answers if metric in answer.scores]
        if all(0 <= score <= 1 for score in scores):
            spread = max(spread, max(scores) - min(scores))
    texts = {answer.text or "" for answer in answers}
    words = [set(text.split()) for text in sorted(texts)[:8]]
    distances = [1 - len(a & b) / max(len(a | b), 1) for a, b in combinations(words, 2)]
    return spread, max(distances, default=0.0)
