"""A config's schedules as Prefect keeps them, and in words."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from dateutil.rrule import rrulestr
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import (
    SCHEDULE_TYPES,
    CronSchedule,
    IntervalSchedule,
    RRuleSchedule,
)

from aligntune.config.schedule import Schedule
from aligntune.config.schedule_rules import days_must_both_fit

FIRST = datetime(2020, 1, 1)
"""The start that Prefect gives a rule without one."""
LOOKED_AT = 100_000
"""Times of a rule that are looked at."""
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
        return CronSchedule(
            cron=schedule.cron,
            timezone=schedule.timezone,
            day_or=not days_must_both_fit(schedule.cron),
        )
    if schedule.interval is not None:
        return IntervalSchedule(
            interval=timedelta(seconds=schedule.interval), timezone=schedule.timezone
        )
    assert schedule.rrule is not None
    return RRuleSchedule(rrule=schedule.rrule, timezone=schedule.timezone)


def differences(there: DeploymentSchedule, want: DeploymentScheduleCreate) -> Sequence[str]:
    """What has to change, by name.

    An interval goes on from where it was counted from, and a rule without a start from that which
    Prefect gave it when it was made.
    """
    found = []
    if _time_of(there.schedule) != _time_of(want.schedule) or _moved(there.schedule, want.schedule):
        found.append("time")
    if there.active != want.active:
        found.append("active")
    if there.parameters != want.parameters:
        found.append("set")
    return found


def over(want: DeploymentScheduleCreate) -> bool:
    """Whether none of its times is still to come, as far as a short look says."""
    time = want.schedule
    if not isinstance(time, RRuleSchedule):
        return False
    now = datetime.now(ZoneInfo(time.timezone or "UTC")).replace(tzinfo=None)
    every = iter(rrulestr(time.rrule, dtstart=FIRST, ignoretz=True))
    if any(at >= now for at in islice(every, LOOKED_AT)):
        return False
    return next(every, None) is None


def _moved(there: SCHEDULE_TYPES, want: SCHEDULE_TYPES) -> bool:
    """Whether a rule has another start than before: one of its own, or none any more."""
    if not isinstance(there, RRuleSchedule) or not isinstance(want, RRuleSchedule):
        return False
    before, now = _start(there.rrule), _start(want.rrule)
    if now or before == f"DTSTART:{FIRST:%Y%m%dT%H%M%S}":
        return now not in (before, None)
    # To what recurs that often Prefect gives a start near the day on which it was made.
    return before is not None and not re.search("FREQ=(SECOND|MINUTE)LY", want.rrule.upper())


def _start(rule: str) -> str | None:
    return next((part for part in rule.upper().split() if part.startswith("DTSTART")), None)


def _time_of(time: SCHEDULE_TYPES) -> tuple[object, ...]:
    if isinstance(time, CronSchedule):
        return "cron", time.cron, time.timezone, time.day_or
    if isinstance(time, IntervalSchedule):
        return "interval", time.interval, time.timezone
    assert isinstance(time, RRuleSchedule)
    return "rrule", _rule(time.rrule), time.timezone


def _rule(text: str) -> str:
    """The rule without its start."""
    parts = [part for part in text.split() if not part.upper().startswith("DTSTART")]
    return "\n".join(part.removeprefix("RRULE:") for part in parts)


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
