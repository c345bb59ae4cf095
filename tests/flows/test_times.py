"""Schedules as Prefect keeps them, in words, and what tells two of them apart."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest
from cronsim import CronSim
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import IntervalSchedule, RRuleSchedule

from aligntune.config.schedule import Schedule
from flows import times

AT_3 = "DTSTART:20260101T030000\nRRULE:FREQ=DAILY"
START = datetime(2026, 12, 1, tzinfo=UTC)


def kept(schedule, **changed):
    """A schedule as the server gives it back."""
    want = times.wanted("x", schedule, changed.pop("parameters", {}))
    return DeploymentSchedule(
        schedule=changed.pop("time", want.schedule),
        active=want.active,
        parameters=want.parameters,
        slug="x",
        **changed,
    )


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"cron": "0 3 * * *"}, "at 03:00 every day"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Berlin"}, "at 03:00 every day (Europe/Berlin)"),
        ({"interval": 86_400}, "every day"),
        ({"interval": 7_200}, "every 2 hours"),
        ({"interval": 90}, "every 90 seconds"),
        ({"interval": 1.5}, "every 1.5 seconds"),
        ({"rrule": "FREQ=WEEKLY;BYDAY=MO"}, "FREQ=WEEKLY;BYDAY=MO"),
        ({"interval": 60, "active": False}, "every minute, off"),
    ],
)
def test_a_schedule_in_words(schedule, words):
    assert times.in_words(kept(Schedule(**schedule))) == words


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        ({"cron": "0 3 * * *"}, {"cron": "0 3 * * *"}, []),
        ({"cron": "0 3 * * *"}, {"cron": "0 4 * * *"}, ["time"]),
        ({"cron": "0 3 * * *"}, {"cron": "0 3 * * *", "timezone": "Asia/Tokyo"}, ["time"]),
        ({"interval": 60}, {"interval": 61}, ["time"]),
        ({"interval": 60}, {"rrule": "FREQ=DAILY"}, ["time"]),
        ({"rrule": "FREQ=DAILY"}, {"rrule": "FREQ=WEEKLY"}, ["time"]),
        ({"rrule": AT_3}, {"rrule": AT_3}, []),
        ({"rrule": AT_3}, {"rrule": AT_3.replace("T03", "T05")}, ["time"]),
        ({"rrule": AT_3}, {"rrule": "FREQ=DAILY"}, ["time"]),
        ({"rrule": "FREQ=DAILY"}, {"rrule": AT_3}, ["time"]),
        ({"cron": "0 3 */2 * *"}, {"cron": "0 3 */2 * 1"}, ["time"]),
        ({"interval": 60}, {"interval": 60, "active": False}, ["active"]),
    ],
)
def test_what_differs_between_two(one, other, differs):
    want = times.wanted("x", Schedule(**other), {})
    assert times.differences(kept(Schedule(**one)), want) == differs


def test_what_a_run_is_given_differs_too():
    want = times.wanted("x", Schedule(interval=60), {"overrides": ["seed=2"]})
    there = kept(Schedule(interval=60), parameters={"overrides": ["seed=1"]})
    assert times.differences(there, want) == ["set"]


def test_where_an_interval_is_counted_from_is_no_difference():
    time = IntervalSchedule(interval=timedelta(seconds=60), anchor_date="2020-01-01T00:00:00Z")
    want = times.wanted("x", Schedule(interval=60), {})
    assert times.differences(kept(Schedule(interval=60), time=time), want) == []


@pytest.mark.parametrize("rule", ["FREQ=DAILY;INTERVAL=2", "FREQ=MINUTELY;INTERVAL=20"])
def test_the_start_that_prefect_gives_a_rule_is_no_difference(rule):
    from prefect.server.schemas.actions import DeploymentScheduleCreate

    schedule = Schedule(rrule=rule)
    want = times.wanted("x", schedule, {})
    sent = DeploymentScheduleCreate.model_validate(want.model_dump()).schedule
    assert sent.rrule != rule
    there = kept(schedule, time=RRuleSchedule(rrule=sent.rrule, timezone="UTC"))
    assert times.differences(there, want) == []
    assert times.in_words(there) == rule


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 3 */2 * 1", "07 21"),  # Mondays whose day is odd, as for cron
        ("0 3 1-7 * */2", "01 03 05 06"),
        ("0 3 1 * 1", "01 07 14 21 28"),
        ("0 3 1 * *", "01"),
        ("0 3 * * 1", "07 14 21 28"),
    ],
)
def test_prefect_takes_the_days_that_cron_and_our_words_mean(cron, days):
    from prefect.server.schemas.schedules import CronSchedule

    time = times.wanted("x", Schedule(cron=cron), {}).schedule
    found = asyncio.run(CronSchedule(**time.model_dump()).get_dates(31, start=START))
    december = [day for day in found if day < START + timedelta(days=31)]
    assert " ".join(f"{day:%d}" for day in december) == days
    meant = list(takewhile(lambda day: day.month == 12, CronSim(cron, START)))
    assert [f"{day:%d}" for day in meant] == days.split()


@pytest.mark.parametrize(
    ("rule", "over"),
    [
        ("FREQ=DAILY;UNTIL=20260101T000000", True),
        (f"{AT_3};COUNT=3", True),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", True),
        ("FREQ=DAILY", False),
        ("FREQ=SECONDLY", False),
        (f"{AT_3};UNTIL=20990101T000000", False),
    ],
)
def test_a_rule_may_be_over(rule, over):
    assert times.over(times.wanted("x", Schedule(rrule=rule), {})) is over
