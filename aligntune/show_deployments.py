"""Deployments as a table in the terminal."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from aligntune.console import screen, table

COLUMNS = ("deployment", "flow", "schedules", "next run", "pool", "last run", "reason")
LONGEST = 80
"""Characters of a reason."""


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """A row for each record of `flows.deployments.listed`."""
    console = screen()
    if not records:
        console.print("nothing is deployed; `aligntune deploy --config X` does it")
        return
    rows: list[tuple[Any, ...]] = [
        (
            each["name"],
            each["flow"],
            "\n".join(each["schedules"]) or "-",
            _next(each),
            _pool(each),
            each["last_state"] or "-",
            (each["last_reason"] or "-")[:LONGEST],
        )
        for each in records
    ]
    console.print(table("deployments", COLUMNS, rows))


def _next(each: Mapping[str, Any]) -> str:
    if each["paused"]:
        return "paused"
    if each["next_run"] is None:
        return "-"
    return f"{datetime.fromisoformat(each['next_run']).astimezone():%Y-%m-%d %H:%M:%S}"


def _pool(each: Mapping[str, Any]) -> str:
    where = each["pool"] or "--serve"
    return where if each["served"] else f"{where} (not running)"
