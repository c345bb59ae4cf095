import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from aligntune.config.data import Dataset
from aligntune.config.slices import DataSlice
from aligntune.data.prepare import Place, prepare
from aligntune.data.rows import read_rows
from aligntune.data.sources import fingerprint

DEFAULTS = {
    "task": None,
    "heldout_fraction": 0,
    "max_heldout": 256,
    "cleaning": {},
    "mix": {},
    "max_length": None,
    "trust_remote_code": False,
    "workers": 1,
    "seed": 42,
}

PREPARE = """
import json, sys
from pathlib import Path
from aligntune.config.slices import DataSlice
from aligntune.data.prepare import Place, prepare
from aligntune.data.sources import fingerprint
found = []
for number, item in enumerate(json.loads(sys.argv[1])):
    out = Path(f"out-{number}")
    out.mkdir()
    spec = DataSlice.model_validate(json.loads(sys.argv[2]) | {"datasets": [item]})
    made = prepare(spec, {"datasets[0]": fingerprint(spec.datasets[0])}, Place(out))
    found.append(made.facts["sources"][0])
print(json.dumps(found))
"""
"""For a process of its own: facts of each dataset in argv[1], with the slice in argv[2]."""


class Result:
    """What the data stage wrote."""

    def __init__(self, out: Path, metrics: Mapping[str, float], facts: Mapping[str, Any]) -> None:
        self.out = out
        self.metrics = metrics
        self.facts = facts

    @property
    def train(self) -> list[dict[str, Any]]:
        return read_rows(self.out / "train.parquet")

    @property
    def heldout(self) -> list[dict[str, Any]]:
        return read_rows(self.out / "heldout.parquet")

    @property
    def rejected(self) -> list[dict[str, Any]]:
        lines = (self.out / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def write_jsonl(tmp_path):
    """Writes rows to a file; returns its name as a config has it."""

    def write(rows: Sequence[Mapping[str, Any]], name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def run_stage(tmp_path):
    """Runs the data stage over datasets given as dicts; `spec` replaces fields of its slice."""
    count = 0

    def run(*datasets: Mapping[str, Any], **spec: Any) -> Result:
        nonlocal count
        count += 1
        out = tmp_path / f"out-{count}"
        out.mkdir()
        parsed = tuple(Dataset.model_validate(dataset) for dataset in datasets)
        place = {name: spec.pop(name) for name in ("tokenizer", "evaluation") if name in spec}
        config = DataSlice.model_validate({"datasets": parsed, **DEFAULTS, **spec})
        sources = {f"datasets[{i}]": fingerprint(dataset) for i, dataset in enumerate(parsed)}
        made = prepare(config, sources, Place(out, **place))
        return Result(out, made.metrics, made.facts)

    return run
