"""A config read and checked: against itself, and against what this machine has."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligntune import needs
from aligntune.config import rules
from aligntune.config.load import Loaded, read
from aligntune.config.naming import dotted
from aligntune.config.problems import place_of
from aligntune.config.run import RunConfig


@dataclass(frozen=True)
class Checked:
    loaded: Loaded
    warnings: tuple[rules.Problem, ...]

    @property
    def config(self) -> RunConfig:
        return self.loaded.config

    @property
    def notes(self) -> list[str]:
        """Repairs and warnings, a line each."""
        repairs = [str(repair) for repair in self.loaded.repairs]
        return [*repairs, *(f"WARNING {self._where(w)}: {w.message}" for w in self.warnings)]

    def record(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "algo": self.config.algo,
            "run_name": self.config.logging.run_name,
            "repairs": [str(repair) for repair in self.loaded.repairs],
            "warnings": [
                {
                    "place": place_of(w.path, self.loaded.places).label,
                    "key": dotted(w.path),
                    "message": w.message,
                }
                for w in self.warnings
            ],
            "config": self.config.model_dump(mode="json"),
        }

    def _where(self, warning: rules.Problem) -> str:
        return f"{place_of(warning.path, self.loaded.places).label}: {dotted(warning.path)}"


def check(paths: Sequence[Path], overrides: Sequence[str]) -> Checked:
    """The config with everything there is to say about it.

    Raises:
        ConfigError: everything that is wrong, or that this machine lacks.
    """
    return warned(read(paths, overrides, needs.problems))


def warned(loaded: Loaded) -> Checked:
    """A config with what is to be said about it by itself."""
    return Checked(loaded, tuple(rules.warnings(loaded.config, loaded.places.keys())))
