"""Why a stage runs: what is different about the stages of its kind that are there."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligntune.artifacts import MANIFEST, WORK
from aligntune.identity import differences, distance

SHOWN = 3
"""Fields that a reason names."""
PARTIAL = ".partial"


@dataclass(frozen=True)
class _Known:
    """A stage that was finished, or that has a checkpoint."""

    identity: Mapping[str, Any]
    step: int | None = None
    """Of the newest checkpoint."""


class Earlier:
    """The stages below a root; a kind's are read when one of it is asked for, each once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._kinds: dict[str, list[_Known]] = {}

    def why(self, kind: str, name: str, identity: Mapping[str, Any]) -> str:
        """Why the unfinished stage with that artifact name has to run."""
        if steps_done := _checkpointed(self._root / f"{name}{PARTIAL}"):
            return f"continues from step {max(steps_done)}"
        if kind not in self._kinds:
            self._kinds[kind] = [*self._finished(kind), *self._begun(kind)]
        alike = self._kinds[kind]
        if not alike:
            return "not done yet"
        nearest = min(alike, key=lambda known: distance(known.identity, identity))
        changed = differences(nearest.identity, identity)
        if not changed:
            return "what was finished is damaged"
        more = len(changed) - SHOWN
        shown = changed[:SHOWN] + ([f"{more} more"] if more > 0 else [])
        why = ", ".join(shown) + " changed"
        if nearest.step is None:
            return why
        return f"{why}; step {nearest.step} of before is not continued"

    def _folders(self, kind: str, ending: str) -> list[Path]:
        found = self._root.glob(f"{kind}-*{ending}")
        return sorted(path for path in found if path.name.rpartition("-")[0] == kind)

    def _finished(self, kind: str) -> Iterator[_Known]:
        for folder in self._folders(kind, ""):
            identity = _identity(folder / MANIFEST)
            if identity is not None:
                yield _Known(identity)

    def _begun(self, kind: str) -> Iterator[_Known]:
        for folder in self._folders(kind, PARTIAL):
            if steps_done := _checkpointed(folder):
                newest = folder / WORK / "checkpoints" / f"step-{max(steps_done):06d}"
                identity = _identity(newest / MANIFEST)
                if identity is not None:
                    yield _Known(identity, max(steps_done))


def _identity(manifest: Path) -> Mapping[str, Any] | None:
    """None of a manifest that cannot be read: whoever needs the stage will say so."""
    import orjson

    with suppress(OSError, ValueError, KeyError, TypeError):
        return dict(orjson.loads(manifest.read_bytes())["identity"])
    return None


def _checkpointed(partial: Path) -> list[int]:
    names = (partial / WORK / "checkpoints").glob("step-*")
    return [int(path.name.removeprefix("step-")) for path in names]
