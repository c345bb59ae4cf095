"""One pipeline run as one HTML file: opens offline, runs no script, asks for nothing else."""

from aligntune.report.page import render, write
from aligntune.report.types import (
    Answer,
    Curve,
    DataRow,
    Difference,
    EvaluationRow,
    Fact,
    GateRow,
    LineageRow,
    Link,
    RewardRow,
    RunReport,
    SampleRow,
    StageRow,
    TrainingSample,
    Verdict,
    Versus,
)

__all__ = [
    "Answer",
    "Curve",
    "DataRow",
    "Difference",
    "EvaluationRow",
    "Fact",
    "GateRow",
    "LineageRow",
    "Link",
    "RewardRow",
    "RunReport",
    "SampleRow",
    "StageRow",
    "TrainingSample",
    "Verdict",
    "Versus",
    "render",
    "write",
]
