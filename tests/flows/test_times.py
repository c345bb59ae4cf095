"""Schedules as Prefect keeps them, in words, and what tells two of them apart."""

from datetime import timedelta

import pytest
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import IntervalSchedule, RRuleSchedule

from aligntune.config.schedule import Schedule
from flows import times


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


def test_the_start_that_prefect_gives_a_rule_is_no_difference():
    text = "DTSTART:20260101T000000\nRRULE:FREQ=DAILY;INTERVAL=2"
    schedule = Schedule(rrule="FREQ=DAILY;INTERVAL=2")
    there = kept(schedule, time=RRuleSchedule(rrule=text, timezone="UTC"))
    assert times.differences(there, times.wanted("x", schedule, {})) == []
    assert times.in_words(there) == "FREQ=DAILY;INTERVAL=2"
