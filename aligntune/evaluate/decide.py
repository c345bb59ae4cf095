"""A decision about a candidate, from finished evaluations.

decision.json    verdict, the sentence that says why, every test with its numbers, and which
                 evaluations, rows and champion it rests on
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from aligntune.artifacts import Artifact, write_atomic
from aligntune.config.slices import DecideSlice
from aligntune.evaluate.compare import EVALUATION, PREDICTIONS, Resampling, read_baseline
from aligntune.evaluate.gates import Judge, Side

DECISION = "decision.json"


def decide(spec: DecideSlice, inputs: Mapping[str, Artifact], out: Path) -> dict[str, Any]:
    """What `decision.json` in `out` says now. `inputs` are evaluations: that of `spec.candidate`,
    and by name those of what it may be compared with.

    Raises:
        DataError: they were not made on the same rows and under the same conditions.
        ConfigError: a gate is about what was not measured.
    """
    own = inputs[spec.candidate]
    document = own.read(EVALUATION)
    metrics, conditions = document["metrics"], document["conditions"]
    tokens = document["tokens"]
    sides = {
        name: _side(name, made.path, conditions, metrics, tokens) for name, made in inputs.items()
    }
    judge = Judge(
        candidate=sides.pop(spec.candidate),
        others=sides,
        higher_is_better={name: found["higher_is_better"] for name, found in metrics.items()},
        units={name: found["unit"] for name, found in metrics.items()},
        quality=_quality(metrics),
        how=Resampling(spec.confidence, spec.resamples, spec.seed),
    )
    decision = judge.decide(spec.gates)
    record = {
        "format": 1,
        "verdict": decision.verdict,
        "why": decision.why,
        "candidate": {"stage": spec.candidate, "model": own.manifest.inputs["model"]},
        "champion": spec.champion and {"version": spec.champion, "key": spec.champion_key},
        "evaluations": {name: made.name for name, made in inputs.items()},
        "data": conditions["rows_sha256"],
        "rows": conditions["rows"],
        "confidence": spec.confidence,
        "gates": [gate.model_dump(mode="json") for gate in spec.gates],
        "tests": [asdict(test) for test in decision.tests],
    }
    write_atomic(out / DECISION, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return record


def _side(
    name: str,
    folder: Path,
    conditions: Mapping[str, Any],
    metrics: Mapping[str, Any],
    tokens: str,
) -> Side:
    columns = read_baseline(name, folder, conditions, metrics, tokens)
    prompts = pq.read_table(folder / PREDICTIONS, columns=["prompt"])["prompt"].to_pylist()
    known: dict[str, int] = {}
    return Side(columns, [known.setdefault(json.dumps(prompt), len(known)) for prompt in prompts])


def _quality(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Not the parts of a reward that is there as a whole."""
    names = [name for name, found in metrics.items() if not found["diagnostic"]]
    return [n for n in names if not n.startswith("rewards/")] if "reward" in names else names
