"""`--filter "exact_match>0.5"`: which runs are meant."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aligntune.compare.history import PastRun
from aligntune.errors import ConfigError, unknown

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "!=": lambda have, want: bool(have != want),
    ">=": lambda have, want: bool(have >= want),
    "<=": lambda have, want: bool(have <= want),
    "=": lambda have, want: bool(have == want),
    ">": lambda have, want: bool(have > want),
    "<": lambda have, want: bool(have < want),
    "~": lambda have, want: want in have,
}
_FORM = re.compile(r"\s*([\w.:/-]+)\s*(!=|>=|<=|==|=|>|<|~)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Filter:
    key: str
    operator: str
    value: str

    def holds(self, run: PastRun) -> bool:
        """Whether `run` has the key and its value is as wanted; as numbers where both are."""
        have = facts(run).get(self.key)
        if have is None:
            return self.operator == "!=" or (self.operator == "=" and self.value == "null")
        number, wanted = _number(have), _number(self.value)
        if self.operator != "~" and number is not None and wanted is not None:
            return OPERATORS[self.operator](number, wanted)
        return OPERATORS[self.operator](_text(have), self.value)


def parse(text: str) -> Filter:
    """KEY OPERATOR VALUE; ConfigError for anything else."""
    found = _FORM.fullmatch(text)
    if not found:
        raise ConfigError(
            f"--filter {text!r} is no condition; write KEY OPERATOR VALUE, such as "
            f"'algo=dpo' or 'exact_match>0.5' (operators: {' '.join(OPERATORS)})"
        )
    key, operator, value = found.groups()
    operator = "=" if operator == "==" else operator
    if operator in ("<", ">", "<=", ">=") and _number(value) is None:
        raise ConfigError(f"--filter {text!r} compares with {value!r}; give a number")
    return Filter(key, operator, value)


def chosen(runs: Sequence[PastRun], texts: Iterable[str]) -> list[PastRun]:
    """Those for which every condition holds.

    Raises:
        ConfigError: a condition is none, or names what no run has.
    """
    filters = [parse(text) for text in texts]
    known = {key for run in runs for key in facts(run)} if filters else set()
    for one in filters:
        if runs and one.key not in known:
            raise ConfigError(f"--filter: {unknown('setting or metric', one.key, known)}")
    return [run for run in runs if all(one.holds(run) for one in filters)]


def facts(run: PastRun) -> dict[str, Any]:
    """All that can be asked of a run: `name`, `state`, settings by path, metrics."""
    return run.settings | run.metrics | {
        "name": run.name, "state": run.state, "algo": run.algo, "model": run.model,
        "version": run.version, "when": run.when, "decision": run.decision,
    }  # fmt: skip


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
