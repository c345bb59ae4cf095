"""A config's schedules as Prefect keeps them, and in words."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cronsim import CronSim, CronSimError
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import (
    SCHEDULE_TYPES,
    CronSchedule,
    IntervalSchedule,
    RRuleSchedule,
)

from aligntune.config.schedule import Schedule

UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def wanted(
    slug: str, schedule: Schedule, parameters: Mapping[str, Any]
) -> DeploymentScheduleCreate:
    """A schedule under its name, with what its runs have beside the deployment's parameters."""
    return DeploymentScheduleCreate(
        slug=slug, schedule=_time(schedule), active=schedule.active, parameters=dict(parameters)
    )


def _time(schedule: Schedule) -> SCHEDULE_TYPES:
    if schedule.cron is not None:
        return CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    if schedule.interval is not None:
        return IntervalSchedule(
            interval=timedelta(seconds=schedule.interval), timezone=schedule.timezone
        )
    assert schedule.rrule is not None
    return RRuleSchedule(rrule=schedule.rrule, timezone=schedule.timezone)


def differences(there: DeploymentSchedule, want: DeploymentScheduleCreate) -> Sequence[str]:
    """What has to change, by name.

    An interval goes on from where it was counted from, and a rule from the start that Prefect
    gave it when it was made.
    """
    found = []
    if _same_time(there.schedule) != _same_time(want.schedule):
        found.append("time")
    if there.active != want.active:
        found.append("active")
    if there.parameters != want.parameters:
        found.append("set")
    return found


def _same_time(time: SCHEDULE_TYPES) -> tuple[object, ...]:
    if isinstance(time, CronSchedule):
        return "cron", time.cron, time.timezone
    if isinstance(time, IntervalSchedule):
        return "interval", time.interval, time.timezone
    assert isinstance(time, RRuleSchedule)
    return "rrule", _rule(time.rrule), time.timezone


def _rule(text: str) -> str:
    """The rule without the start that Prefect adds to it."""
    lines = [line for line in text.splitlines() if not line.startswith("DTSTART")]
    return "\n".join(line.removeprefix("RRULE:") for line in lines)


def in_words(entry: DeploymentSchedule) -> str:
    """`at 03:00 every day (Europe/Berlin)`."""
    time = entry.schedule
    if isinstance(time, CronSchedule):
        words = _cron(time.cron)
    elif isinstance(time, IntervalSchedule):
        words = f"every {_span(time.interval.total_seconds())}"
    elif isinstance(time, RRuleSchedule):
        words = _rule(time.rrule)
    else:
        words = "never"
    zone = getattr(time, "timezone", None)
    words += f" ({zone})" if zone not in (None, "UTC") else ""
    return words if entry.active else f"{words}, off"


def _cron(text: str) -> str:
    try:
        words = CronSim(text, datetime.now(UTC)).explain()
    except CronSimError:  # not made by us
        return text
    return re.sub("^At", "at", words[:1].lower() + words[1:])


def _span(seconds: float) -> str:
    for size, unit in UNITS:
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return unit if count == 1 else f"{count} {unit}s"
    return f"{seconds:g} seconds"
