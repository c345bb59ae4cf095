"""What schedules, triggers and deployments may say, and that a run could have what they set."""

import json

import pytest
from jinja2 import Environment
from own_process import printed

from aligntune.config.load import load
from aligntune.config.overrides import flat, override
from aligntune.config.schedule_rules import slug_of
from aligntune.errors import ConfigError

BASE = """
algo: dpo
model: {name_or_path: owner/model}
datasets: [{name: owner/data}]
train: {max_steps: 10}
"""
CRON = "cron: 0 3 * * *"


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(BASE + text)
        return path

    return write


@pytest.mark.parametrize(
    "schedule",
    [
        CRON,
        "cron: '*/5 8-17 * * MON-FRI', timezone: Europe/Berlin",
        "interval: 3600",
        "rrule: 'FREQ=WEEKLY;BYDAY=MO', active: false",
        'rrule: "DTSTART:20260101T000000\\nRRULE:FREQ=DAILY;INTERVAL=2"',
        f"{CRON}, set: {{train.max_steps: 100, train: {{beta: 0.2}}}}",
        f"{CRON}, set: {{datasets.*.max_samples: 5, logging.level: DEBUG}}",
        f"{CRON}, set: {{deployment.overlap: queue}}",
    ],
)
def test_a_schedule_that_can_be_is_taken(written, schedule):
    assert len(load([written(f"schedules: [{{{schedule}}}]")]).schedules) == 1


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("schedules: [{slug: night}]", "schedules.0: says no time; give `cron`"),
        (f"schedules: [{{{CRON}, interval: 60}}]", "schedules.0.interval: `cron` says when"),
        ("schedules: [{cron: 0 3 * *}]", "schedules.0.cron: has 4 fields and not five"),
        ("schedules: [{cron: 0 0 3 * * *}]", "has 6 fields"),
        ("schedules: [{cron: 61 3 * * *}]", "schedules.0.cron: is no cron expression: bad minute"),
        ("schedules: [{cron: 0 0 30 2 *}]", "schedules.0.cron: "),
        ("schedules: [{rrule: every monday}]", "schedules.0.rrule: is no recurrence rule"),
        ("schedules: [{rrule: 'FREQ=OFTEN'}]", "schedules.0.rrule: is no recurrence rule"),
        (f"schedules: [{{rrule: 'EXDATE:{'1' * 7000}'}}]", "Prefect takes 6500"),
        ("schedules: [{cron: 0 3 * * 5L}]", "use `rrule`: `FREQ=MONTHLY;BYDAY=-1FR`"),
        ("schedules: [{cron: 0 3 LW * *}]", "Prefect knows no last weekday"),
        (
            "schedules: [{rrule: 'DTSTART;TZID=Asia/Tokyo:20260101T030000 RRULE:FREQ=DAILY'}]",
            "schedules.0.rrule: its times are those of `timezone`, 'UTC', whatever else it says",
        ),
        (
            "schedules: [{rrule: 'DTSTART:20260101T030000Z RRULE:FREQ=DAILY', "
            "timezone: Europe/Berlin}]",
            "its times are those of `timezone`, 'Europe/Berlin', whatever else it says (UTC)",
        ),
        ("schedules: [{rrule: 'FREQ=DAILY;UNTIL=20990101T000000Z'}]", "write it without `Z`"),
        ("schedules: [{rrule: 'FREQ=DAILY;INTERVAL=0'}]", "INTERVAL has to be 1 or more"),
        ("schedules: [{rrule: 'FREQ=DAILY;COUNT=5'}]", "its COUNT has no start to count from"),
        ("schedules: [{interval: 1e14}]", "schedules.0.interval: "),
        (f"schedules: [{{{CRON}, timezone: posix/Europe/Berlin}}]", "there is no time zone"),
        (f"schedules: [{{{CRON}, timezone: Europe/Berlim}}]", "schedules.0.timezone: there is no"),
        (f"schedules: [{{{CRON}, timezone: Europe}}]", "schedules.0.timezone: there is no"),
        (f"schedules: [{{{CRON}, slug: a}}, {{interval: 9, slug: a}}]", "schedules.1.slug: 'a'"),
        (f"schedules: [{{{CRON}, slug: schedule-1}}, {{interval: 9}}]", "schedules.1.slug"),
        (
            f"schedules: [{{{CRON}, set: {{train.max_stepz: 3}}}}]",
            "schedules.0.set: train.max_stepz: unknown key; did you mean 'max_steps'?",
        ),
        (
            f"schedules: [{{interval: 9}}, {{{CRON}, set: {{train.max_steps: many}}}}]",
            "schedules.1.set: train.max_steps: got 'many'; must be",
        ),
        (f"schedules: [{{{CRON}, set: {{mdel: {{x: 1}}}}}}]", "schedules.0.set: mdel: unknown key"),
        (
            f"schedules: [{{{CRON}, set: {{logging.push_to_hub: true}}}}]",
            "needs `hub_model_id: owner/name`",
        ),
        (f"schedules: [{{{CRON}, set: {{deployment.pool: gpu}}}}]", "does not read it"),
        (f"schedules: [{{{CRON}, set: {{datasets.3.name: x}}}}]", "has no item '3'"),
        ("deployment: {queue: fast}", "deployment.queue: is about the jobs of a work pool"),
        ("deployment: {job_variables: {image: x}}", "deployment.job_variables: is about"),
        ("deployment: {approval_pool: cpu}", "deployment.approval_pool: without `pool`"),
        ("deployment: {pool: gpu, approval_pool: cpu}", "nobody is asked for an approval"),
        (
            "deployment: {flow: post-train}\nretrain: {approval: required}",
            "deployment.flow: post-train asks nobody",
        ),
        (
            "deployment: {triggers: [{event: e}, {event: f}, {event: e}]}",
            "deployment.triggers.2.event: an earlier trigger",
        ),
        (
            "deployment: {triggers: [{event: e, set: {train.betta: '{{ event.payload.b }}'}}]}",
            "deployment.triggers.0.set: train.betta: unknown key; did you mean 'beta'?",
        ),
        (
            "deployment: {triggers: [{event: e, set: {train.beta: '{{ event.payload'}}]}",
            "is no template",
        ),
        (
            "deployment: {triggers: [{event: e, set: {train.beta: much}}]}",
            "deployment.triggers.0.set: train.beta: got 'much'",
        ),
    ],
)
def test_one_that_cannot_be_is_named_with_its_place(written, section, says):
    with pytest.raises(ConfigError) as raised:
        load([written(section)])
    message = str(raised.value)
    assert says in message
    assert "run.yaml:" in message, message
    assert "--set" not in message


def test_a_trigger_may_use_its_event(written):
    section = "{event: e, resource: data.x, set: {datasets.0.revision: '{{ event.payload.r }}'}}"
    path = written(f"deployment: {{triggers: [{section}]}}")
    (trigger,) = load([path]).deployment.triggers
    assert trigger.resource == "data.x"
    for revision in ("20261126", "12e45", "2026.10", "v1 'a' \"b\": <c>", "null"):
        (set_to,) = (override(*each) for each in flat(trigger.set).items())
        filled_in = Environment().from_string(set_to).render(event={"payload": {"r": revision}})
        assert load([path], [filled_in]).datasets[0].revision == revision
    with pytest.raises(ConfigError, match=r"revision: got ''; must be text that is not empty"):
        load([path], [Environment().from_string(set_to).render(event={"payload": {}})])
    assert override("seed", "{{ event.payload.seed }}") == "seed={{ event.payload.seed }}"


def test_a_schedule_without_a_slug_has_one_by_its_place(written):
    config = load([written(f"schedules: [{{{CRON}}}, {{interval: 9, slug: often}}]")])
    assert [slug_of(*each) for each in enumerate(config.schedules)] == ["schedule-0", "often"]


@pytest.mark.parametrize(
    "value", [3, 2.5e-5, True, None, "no", "5e-5", 'say "hi"', "${HOME}", "a: b", ["x", 1], "é\n"]
)
def test_a_setting_comes_back_from_its_override(written, value):
    from aligntune.config.document import parse_value

    key, _, text = override("a.b", value).partition("=")
    assert key == "a.b"
    assert parse_value(text, "test")[0] == value


def test_sections_in_a_set_are_settings_of_their_own():
    assert flat({"train": {"beta": 1, "x": {}}, "seed": 2}) == {
        "train.beta": 1,
        "train.x": {},
        "seed": 2,
    }


def test_a_config_without_schedules_reads_no_rules_of_time(written):
    code = (
        "import os, sys; os.environ['PYDANTIC_DISABLE_PLUGINS'] = '__all__'\n"
        "from pathlib import Path; from aligntune.config.load import load\n"
        "load([Path(sys.argv[1])]); import json; print(json.dumps(list(sys.modules)))"
    )
    assert not {"cronsim", "dateutil", "jinja2"} & set(json.loads(printed(code, written(""))))
