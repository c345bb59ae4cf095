"""What is wrong with schedules, triggers and the deployment that they start.

What reads cron expressions and recurrence rules is imported only where there is one.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from aligntune.config.naming import KeyPath, dotted, short
from aligntune.config.overrides import TEMPLATE, flat, override, path_of
from aligntune.config.run import RunConfig
from aligntune.config.schedule import Deployment, Schedule, Trigger
from aligntune.errors import ConfigError

KINDS = ("cron", "interval", "rrule")
LONGEST_RRULE = 6_500
"""Characters that Prefect takes."""
OF_RUNS = ("deployment.overlap",)
"""What a run reads of the sections that describe the deployment."""

Found = Iterator[tuple[KeyPath, str]]


def schedule_problems(config: RunConfig) -> Found:
    """What a schedule, a trigger or the deployment says that cannot be."""
    for index, schedule in enumerate(config.schedules):
        for name, message in _schedule(schedule):
            yield (("schedules", index, name) if name else ("schedules", index)), message
    slugs = [slug_of(index, schedule) for index, schedule in enumerate(config.schedules)]
    for index, slug in enumerate(slugs):
        if slug in slugs[:index]:
            yield (
                ("schedules", index, "slug"),
                f"{slug!r} is the name of an earlier schedule; give each its own",
            )
    yield from _deployment(config)


def slug_of(index: int, schedule: Schedule) -> str:
    """The name under which Prefect keeps the schedule at a position of the list."""
    return schedule.slug or f"schedule-{index}"


def set_problems(config: RunConfig, tried: Callable[[Sequence[str]], object]) -> Found:
    """What is wrong with the `set` of schedules and triggers.

    Args:
        config: One that is right without them.
        tried: Raises a ConfigError where these overrides make a config that no run can have.
    """
    places: list[tuple[KeyPath, Schedule | Trigger]] = [
        (("schedules", index), schedule) for index, schedule in enumerate(config.schedules)
    ]
    places += [
        (("deployment", "triggers", index), trigger)
        for index, trigger in enumerate(config.deployment.triggers)
    ]
    for at, entry in places:
        if not entry.set:
            continue
        for message in _set(entry, tried):
            yield (*at, "set"), message


def _schedule(schedule: Schedule) -> Iterator[tuple[str, str]]:
    given = [name for name in KINDS if getattr(schedule, name) is not None]
    if not given:
        yield "", "says no time; give `cron`, `interval` or `rrule`"
    elif len(given) > 1:
        yield given[1], f"`{given[0]}` says when already; remove one of them"
    if schedule.cron is not None and (wrong := _cron(schedule.cron)):
        yield "cron", wrong
    if schedule.rrule is not None and (wrong := _rrule(schedule.rrule, schedule.timezone)):
        yield "rrule", wrong
    if not _is_timezone(schedule.timezone):
        yield (
            "timezone",
            f"there is no time zone {short(schedule.timezone)}; give one of the IANA database, "
            "such as Europe/Berlin",
        )


def _cron(text: str) -> str | None:
    from cronsim import CronSim, CronSimError

    example = "`0 3 * * 1-5` is at three from Monday to Friday"
    if (count := len(text.split())) != 5:
        return f"has {count} fields and not five (minute, hour, day, month, weekday); {example}"
    try:
        times = CronSim(text, datetime.now(UTC))
    except CronSimError as error:
        return f"is no cron expression: {str(error).lower()}; {example}"
    if next(times, None) is None:
        return "no date fits it; change its day or month"
    _, _, day, _, weekday = text.upper().split()
    if "W" in day or any(each.endswith("L") for each in weekday.split(",")):
        return (
            "Prefect knows no last weekday of a month; use `rrule`: `FREQ=MONTHLY;BYDAY=-1FR` is "
            "its last Friday"
        )
    return None


def days_must_both_fit(text: str) -> bool:
    """Whether a cron expression means the days that its third and its fifth field both allow, as
    for cron where one of them begins with `*`; Prefect takes those that one of them allows."""
    _, _, day, _, weekday = text.split()
    return "*" not in (day, weekday) and "*" in (day[0], weekday[0])


def _rrule(text: str, timezone: str) -> str | None:
    from dateutil.rrule import rrulestr

    example = "`FREQ=WEEKLY;BYDAY=MO` is every Monday"
    if len(text) > LONGEST_RRULE:
        return f"has {len(text)} characters, and Prefect takes {LONGEST_RRULE}; shorten it"
    if wrong := _unlike_prefect(text.upper(), timezone):
        return wrong
    try:
        rrulestr(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return f"is no recurrence rule: {str(error).lower()}; {example}"
    return None


def _unlike_prefect(text: str, timezone: str) -> str | None:
    """What Prefect takes, and then does not do."""
    given = set(re.findall(r"TZID=([^:;\s]+)", text))
    given |= {"UTC"} if re.search(r"T\d{6}Z", text) else set()
    if given - {timezone.upper()}:
        return (
            f"its times are those of `timezone`, {short(timezone)}, whatever else it says "
            f"({', '.join(sorted(given))}); set that, and write them without `TZID` and `Z`"
        )
    if re.search(r"UNTIL=\w+Z", text) and not re.search(r"DTSTART\S*Z", text):
        return "its UNTIL is in `timezone` as its other times are; write it without `Z`"
    if re.search(r"INTERVAL=(0+|-\d+)\b", text):
        return "its INTERVAL has to be 1 or more"
    if "COUNT=" in text and "DTSTART" not in text:
        return (
            "its COUNT has no start to count from; put one in front, such as "
            "`DTSTART:20270101T030000\\nRRULE:`"
        )
    return None


def _is_timezone(name: str) -> bool:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if name.startswith(("posix", "right/")):  # copies of the database that Prefect does not read
        return False
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a directory of the database
        return False
    return True


def _deployment(config: RunConfig) -> Found:
    deployment = config.deployment
    if deployment.pool is None:
        for name in ("queue", "job_variables"):
            if getattr(deployment, name):
                yield (
                    ("deployment", name),
                    f"is about the jobs of a work pool, and there is none; set `pool`, or remove "
                    f"`{name}`",
                )
        if deployment.approval_pool:
            yield (
                ("deployment", "approval_pool"),
                "without `pool` one process runs everything; set `pool` too, or remove it",
            )
    if deployment.approval_pool and config.retrain.approval == "none":
        yield (
            ("deployment", "approval_pool"),
            "nobody is asked for an approval; set `retrain.approval: required`, or remove it",
        )
    if config.retrain.approval == "required" and deployment.flow != "retrain":
        yield (
            ("deployment", "flow"),
            f"{deployment.flow} asks nobody for the approval that `retrain.approval` requires, and "
            "would promote nothing; use retrain",
        )
    yield from _triggers(deployment)


def _triggers(deployment: Deployment) -> Found:
    seen = set()
    for index, trigger in enumerate(deployment.triggers):
        what = (trigger.event, trigger.resource)
        if what in seen:
            yield (
                ("deployment", "triggers", index, "event"),
                "an earlier trigger is for the same event; remove one, or one run would be refused",
            )
        seen.add(what)


def _set(entry: Schedule | Trigger, tried: Callable[[Sequence[str]], object]) -> Iterator[str]:
    settings = flat(entry.set)
    for key in settings:
        head = key.split(".")[0]
        if head in ("deployment", "schedules") and key not in OF_RUNS:
            yield f"{key}: a run that has been started does not read it; remove it"
            return
    plain: Mapping[str, object] = settings
    if isinstance(entry, Trigger):
        plain = {key: value for key, value in settings.items() if not _templated(value)}
        for key in settings.keys() - plain.keys():
            if wrong := _template(key, str(settings[key])):
                yield wrong
    try:
        tried([override(key, value) for key, value in plain.items()])
    except ConfigError as error:
        for line in str(error).splitlines():
            yield _shorter(line, plain)


def _templated(value: object) -> bool:
    return isinstance(value, str) and TEMPLATE in value


def _template(key: str, text: str) -> str | None:
    from jinja2 import Environment, TemplateSyntaxError

    from aligntune.config.schema import allowed_at, known_name

    path = path_of(key)
    if not allowed_at(path):
        return f"{dotted(path)}: unknown key; {known_name(path)}"
    try:
        Environment(autoescape=False).parse(text)
    except TemplateSyntaxError as error:
        return f"{key}: {short(text)} is no template: {error.message}; see Jinja's documentation"
    return None


def _shorter(line: str, settings: Mapping[str, object]) -> str:
    """A message without the `--set` that nobody typed."""
    for key, value in settings.items():
        line = line.removeprefix(f"--set {override(key, value)[:80]}: ")
    return line
