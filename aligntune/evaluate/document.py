"""What was measured, as `evaluation.json` and as flat numbers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from aligntune.evaluate.compare import Measured, Resampling
from aligntune.evaluate.types import Metric, Row

LOG = logging.getLogger(__name__)


def flat(measured: Mapping[str, Measured]) -> dict[str, float]:
    """`nll`, `nll/low`, `nll/vs_base`, ..."""
    found: dict[str, float] = {}
    for name, result in measured.items():
        interval = result.interval
        found[name] = interval.mean
        found[f"{name}/low"], found[f"{name}/high"] = interval.low, interval.high
        found[f"{name}/se"] = interval.standard_error
        found[f"{name}/count"] = float(interval.count)
        for label, difference in result.against.items():
            found[f"{name}/vs_{label}"] = difference.difference
            found[f"{name}/vs_{label}_low"] = difference.low
            found[f"{name}/vs_{label}_high"] = difference.high
    return found


def facts(
    rows: Sequence[Row], metrics: Mapping[str, Metric], measured: Mapping[str, Measured]
) -> dict[str, Any]:
    """Rows measured, rows without a score per metric, and baseline -> metric -> verdict."""
    verdicts: dict[str, dict[str, str]] = {}
    for name, result in measured.items():
        if result.unscored and not metrics[name].diagnostic:
            what = metrics[name].unscored
            LOG.warning("%s: %d rows got no score: none %s", name, result.unscored, what)
        for label, difference in result.against.items():
            verdicts.setdefault(label, {})[name] = difference.verdict
    unscored = {name: result.unscored for name, result in measured.items()}
    return {"rows": len(rows), "unscored": unscored, "verdicts": verdicts}


def document(
    conditions: Mapping[str, Any],
    tokens: str,
    how: Resampling,
    metrics: Mapping[str, Metric],
    measured: Mapping[str, Measured],
) -> dict[str, Any]:
    """`evaluation.json`. Nothing in it depends on the machine's speed; `tokens` is the digest of
    the model's own, which metrics per token count in."""
    return {
        "format": 3,
        "conditions": dict(conditions),
        "tokens": tokens,
        "intervals": asdict(how),
        "metrics": {
            name: {
                "higher_is_better": metrics[name].higher_is_better,
                "diagnostic": metrics[name].diagnostic,
                "unit": metrics[name].unit,
                "unscored": result.unscored,
                **asdict(result.interval),
                "against": {label: asdict(found) for label, found in result.against.items()},
            }
            for name, result in measured.items()
        },
    }
