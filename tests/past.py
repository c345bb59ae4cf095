"""Directories as runs leave them, written in no time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from manifests import manifest

from aligntune.artifacts import commit, find, key_of, partial
from aligntune.evaluate.stats import mean_interval
from aligntune.journal import Journal

HOW = {"confidence": 0.95, "resamples": 1000, "seed": 42}


class Past:
    """An output directory with runs in it."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def run(
        self,
        name: str,
        *,
        scores: dict[str, list[float]] | None = None,
        answers: list[str] | None = None,
        conditions: dict[str, Any] | None = None,
        asked: list[int] | None = None,
        judged: dict[str, Any] | None = None,
        tokens: str = "t1",
        curve: list[float] = (0.7, 0.6, 0.5),
        done: bool = True,
        **settings: Any,
    ) -> Path:
        """A run of dpo after data; `scores` by metric and row, `judged` is the evaluation's own
        config, `settings` of `train`."""
        config = {"algo": "dpo", "train": settings}
        stages = [self.stage("data", {"seed": 1}, {"rows_train": 4.0}, DATA)]
        trained = {"train": settings, "curve": list(curve)}
        stages.append(
            self.stage("dpo", trained, {"final_loss": curve[-1]}, {}, {"data": stages[0]}, curve)
        )
        if done:
            made = evaluated(
                scores or {"exact_match": [0.0, 1.0]}, answers, conditions or {}, asked
            )
            made[0]["tokens"] = tokens
            stages.append(self.evaluation({"model": stages[1]}, *made, judged or {}))
        else:
            stages.append("evaluate-000000000000")
        labels = ("data", "dpo", "evaluate-dpo")
        return self.folder(name, config, dict(zip(labels, stages, strict=True)))

    def stage(
        self,
        kind: str,
        config: dict[str, Any],
        metrics: dict[str, float],
        facts: dict[str, Any],
        inputs: dict[str, str] | None = None,
        curve: Any = (),
        fill: Any = None,
    ) -> str:
        parts = {"kind": kind, "config": config, "inputs": inputs or {}}
        root, key = self.output / "stages", key_of(parts)
        if find(root, kind, key):
            return f"{kind}-{key}"
        out = partial(root, kind, key)
        if len(curve):
            journal = Journal(out / "metrics.jsonl")
            for step, value in enumerate(curve, 1):
                journal.write(step, {"train/loss": value, "train/entropy": value / 2})
            journal.close()
        if fill:
            fill(out)
        known = {"inputs": inputs or {}, "metrics": metrics, "facts": facts, "seconds": 1.0}
        commit(out, manifest(kind, key, identity=parts, **known))
        return f"{kind}-{key}"

    def evaluation(
        self, inputs: dict[str, str], document: Any, table: pa.Table, config: dict[str, Any]
    ) -> str:
        def fill(out: Path) -> None:
            (out / "evaluation.json").write_text(json.dumps(document))
            pq.write_table(table, out / "predictions.parquet")

        metrics = {name: entry["mean"] for name, entry in document["metrics"].items()}
        own = document["conditions"] | config
        return self.stage("evaluate", own, metrics, {}, inputs, fill=fill)

    def folder(self, name: str, config: dict[str, Any], stages: dict[str, str]) -> Path:
        folder = self.output / "runs" / name
        folder.mkdir(parents=True)
        full = {"model": {"name_or_path": "owner/tiny"}} | config
        (folder / "config.yaml").write_text(json.dumps(full))
        plan = [{"stage": label, "artifact": artifact} for label, artifact in stages.items()]
        (folder / "plan.json").write_text(json.dumps(plan))
        return folder

    def status(self, name: str, **told: Any) -> None:
        (self.output / "runs" / name / "status.json").write_text(json.dumps(told))


DATA = {
    "digests": {"train": "d1" * 32},
    "sources": [{"name": "pairs.jsonl", "split": "train", "kept": 4}],
}


def evaluated(
    scores: dict[str, list[float]],
    answers: list[str] | None,
    conditions: dict[str, Any],
    asked: list[int] | None,
) -> tuple[dict[str, Any], pa.Table]:
    rows = len(next(iter(scores.values())))
    prompts = [[{"role": "user", "content": f"question {row}"}] for row in asked or range(rows)]
    metrics = {
        name: {
            **vars(mean_interval(np.array([v for v in values if v == v]), **HOW)),
            "higher_is_better": name != "nll",
            "diagnostic": name == "answer_tokens",
        }
        for name, values in scores.items()
    }
    document = {
        "conditions": {"rows": rows, "max_new_tokens": 8} | conditions,
        "intervals": HOW,
        "metrics": metrics,
    }
    columns = {"prompt": prompts, "reference": ["r"] * rows, "completion": answers or ["a"] * rows}
    by_row = {name: values for name, values in scores.items() if name != "perplexity"}
    return document, pa.table(columns | by_row)
