"""One generation pass per model: answers are kept by what they depend on and never made twice.

    <output_dir>/answers/<key>.parquet    a line per prompt; may be deleted at any time

The key digests the model's files, the prompts and the settings, so a change of metrics, rewards or
baselines generates nothing, nor does the same model under another name.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aligntune.artifacts import key_of, staged
from aligntune.evaluate.generate import Answer

LOG = logging.getLogger(__name__)

VERSION = 1
"""Raised when the same model and settings give other answers."""
LIBRARIES = ("torch", "transformers")
_SECONDS = b"seconds"


@dataclass(frozen=True)
class Cache:
    folder: Path
    model: str
    """Digest of the model's files."""

    def answers(
        self,
        conditions: Mapping[str, Any],
        prompts: Sequence[Any],
        generate: Callable[[], tuple[list[Answer | None], float]],
    ) -> tuple[list[Answer | None], float]:
        """The answers to `prompts` and the seconds that they took, from before or from `generate`.

        `conditions` are the settings of the generation.
        """
        asked = json.dumps(prompts, sort_keys=True, separators=(",", ":"))
        parts = {
            "version": VERSION,
            "model": self.model,
            "prompts": hashlib.sha256(asked.encode()).hexdigest(),
            "conditions": dict(conditions),
            "environment": {name: version(name).rsplit(".", 1)[0] for name in LIBRARIES},
        }
        file = self.folder / f"{key_of(parts)}.parquet"
        kept = _read(file, len(prompts))
        if kept:
            LOG.info("the answers to %d prompts were there already", len(prompts))
            return kept
        made, seconds = generate()
        _write(file, made, seconds)
        return made, seconds


def _read(file: Path, count: int) -> tuple[list[Answer | None], float] | None:
    """What `_write` wrote; nothing where there is no such file or it is damaged."""
    try:
        table = pq.read_table(file)
        found = [
            None
            if line["text"] is None
            else Answer(line["text"], len(line["ids"]), line["finished"], tuple(line["ids"]))
            for line in table.to_pylist()
        ]
        seconds = float(table.schema.metadata[_SECONDS])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
        return None
    return (found, seconds) if len(found) == count else None


def _write(file: Path, answers: Sequence[Answer | None], seconds: float) -> None:
    table = pa.table(
        {
            "text": pa.array([a.text if a else None for a in answers], pa.string()),
            "ids": pa.array([a.ids if a else None for a in answers], pa.list_(pa.int64())),
            "finished": pa.array([a.finished if a else None for a in answers], pa.bool_()),
        }
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = table.replace_schema_metadata({_SECONDS: repr(seconds).encode()})
    with staged(file) as staging:
        pq.write_table(kept, staging, compression="zstd")
