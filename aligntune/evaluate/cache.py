"""One pass per model: answers and scores are kept by what they depend on and never made twice.

    <output_dir>/answers/<key>.parquet    a line per prompt; may be deleted at any time
    <output_dir>/scores/<key>.parquet     a line per row or answer that a model has scored

The key digests the model's files, the prompts and the settings, so a change of metrics, rewards,
resamples or baselines generates and scores nothing again, nor does the same model under another
name.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    reference: str | None = None
    """That of the model which training started from."""
    judges: Mapping[int, str] = field(default_factory=dict)
    """By its place in the config, what identifies the model of a reward."""
    measures: int = 0
    """Raised when the same models give other scores."""

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
            "environment": _environment(),
        }
        file = self.folder / f"{key_of(parts)}.parquet"
        kept = _read(file, len(prompts))
        if kept:
            LOG.info("the answers to %d prompts were there already", len(prompts))
            return kept
        made, seconds = generate()
        _write(file, made, seconds)
        return made, seconds

    def scores(
        self,
        what: Mapping[str, Any],
        scored: Any,
        score: Callable[[], list[float | None]],
    ) -> list[float | None]:
        """A score for each of `scored`, as JSON values, from before or from `score`. `what` is all
        that they depend on besides."""
        text = json.dumps(scored, sort_keys=True, separators=(",", ":"))
        parts = {
            "version": self.measures,
            "what": dict(what),
            "scored": hashlib.sha256(text.encode()).hexdigest(),
            "environment": _environment(),
        }
        file = self.folder.with_name("scores") / f"{key_of(parts)}.parquet"
        try:
            found: list[float | None] = pq.read_table(file)["score"].to_pylist()
        except (OSError, pa.ArrowInvalid, KeyError):
            found = score()
            _replace(file, pa.table({"score": pa.array(found, pa.float64())}))
        else:
            LOG.info("%d scores were there already", len(found))
        return found

    def of_subject(
        self,
        name: str,
        conditions: Mapping[str, Any],
        scored: Any,
        score: Callable[[], list[float | None]],
    ) -> list[float | None]:
        """The scores that the measured model gives by a metric of that name."""
        models = {"model": self.model, "reference": self.reference}
        return self.scores({"metric": name, **models, **conditions}, scored, score)


def _environment() -> dict[str, str]:
    return {name: version(name).rsplit(".", 1)[0] for name in LIBRARIES}


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
    _replace(file, table.replace_schema_metadata({_SECONDS: repr(seconds).encode()}))


def _replace(file: Path, table: pa.Table) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with staged(file) as staging:
        pq.write_table(table, staging, compression="zstd")
