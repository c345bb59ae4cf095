"""What `aligntune deploy` makes of a config on a real Prefect server, and of the same again."""

import json
import os

import pytest
from deployments.deployed import (
    DEPLOYED,
    ask,
    automations_of,
    command,
    deployed,
    runs_of,
    trigger,
)
from waits import until

from aligntune.errors import ConfigError

pytestmark = pytest.mark.slow


def test_the_same_config_again_changes_nothing(written):
    path = written("again", DEPLOYED)
    (first,), _ = deployed(path)
    assert first.did == ["created"]
    before = ask(lambda client: client.read_deployment(first.id)), automations_of(first.id)
    (second,), _ = deployed(path)
    after = ask(lambda client: client.read_deployment(first.id)), automations_of(first.id)
    assert second.did == []
    assert second.id == first.id
    assert after == before
    deployment, automations = after
    assert deployment.entrypoint == "flows.post_train.post_train"
    assert deployment.parameters["configs"] == [str(path)]
    assert {schedule.slug for schedule in deployment.schedules} == {"night", "daily", "weekly"}
    assert len(automations) == 3  # two events, and lost runs


def test_what_changed_in_the_config_is_changed_and_the_rest_is_kept(written):
    path = written("changing", DEPLOYED)
    (first,), _ = deployed(path)
    old = {s.slug: s for s in ask(lambda c: c.read_deployment(first.id)).schedules}
    text = DEPLOYED.replace("slug: night", "slug: night, active: false").replace("3}}", "4}}")
    text = text.replace('  - {rrule: "FREQ=WEEKLY;BYDAY=MO", slug: weekly}', "  - {interval: 9e3}")
    text = text.replace("event: asked", "event: told").replace("tags: [one]", "tags: [two]")
    path = written("changing", text)
    (second,), _ = deployed(path, "seed=5")
    new = {s.slug: s for s in ask(lambda c: c.read_deployment(first.id)).schedules}
    assert sorted(second.did) == [
        "created: on told",
        "created: schedule schedule-2",
        "removed: on asked",
        "removed: schedule weekly",
        "updated: on data.published of dataset.pairs",
        "updated: parameters, tags",
        "updated: schedule daily: set",
        "updated: schedule night: active",
    ]
    assert {slug: new[slug].id for slug in ("night", "daily")} == {
        slug: old[slug].id for slug in ("night", "daily")
    }
    assert new["daily"].schedule == old["daily"].schedule  # its anchor too
    assert new["daily"].parameters == {"overrides": ["seed=5", "train.max_steps=4"]}
    assert not new["night"].active
    assert "weekly" not in new


def test_an_automation_that_somebody_paused_stays_paused(written):
    path = written("quiet", DEPLOYED)
    (first,), _ = deployed(path)
    name = "post-train/quiet: on data.published of dataset.pairs"
    automation = automations_of(first.id)[name]
    ask(lambda client: client.pause_automation(automation))
    deployed(path, "seed=5")
    kept = ask(lambda client: client.read_automation(automation))
    assert not kept.enabled
    assert kept.actions[0].parameters["overrides"][0] == "seed=5"


def test_variables_are_read_where_the_run_is(written, monkeypatch):
    monkeypatch.setenv("STEPS", "7")
    path = written(
        "variable",
        "deployment: {flow: post-train}\n"
        "schedules: [{interval: 9e3, set: {train.max_steps: '${STEPS}', seed: 3}}]\n",
    )
    (first,), _ = deployed(path)
    (schedule,) = ask(lambda client: client.read_deployment(first.id)).schedules
    assert schedule.parameters == {"overrides": ["train.max_steps=${STEPS}", "seed=3"]}


def test_a_pool_has_to_be_there_and_bounded(written):
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.workers.process import ProcessWorker

    path = written("pooled", "deployment: {flow: post-train, pool: gpus}\n")
    with pytest.raises(ConfigError, match="prefect work-pool create gpus"):
        deployed(path)
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name="gpus", type="process", base_job_template=template)
    ask(lambda client: client.create_work_pool(pool))
    (first,), warnings = deployed(path)
    assert "work-pool set-concurrency-limit gpus 1" in warnings[0]
    there = ask(lambda client: client.read_deployment(first.id))
    assert (there.work_pool_name, there.work_queue_name) == ("gpus", "default")
    assert there.job_variables == {"working_dir": os.getcwd()}
    with pytest.raises(ConfigError, match="prefect work-queue create fast --pool gpus"):
        deployed(path, "deployment.queue=fast")
    with pytest.raises(ConfigError, match=r"job_variables\.env: 3 is not"):
        deployed(path, "deployment.job_variables={env: 3}")
    (second,), _ = deployed(path, "deployment.pool=null")
    assert ask(lambda client: client.read_deployment(second.id)).work_pool_name is None


def test_approvals_have_a_deployment_of_their_own_as_long_as_they_are_asked_for(written):
    path = written("asking", "retrain: {approval: required}\n")
    (main, approval), _ = deployed(path)
    assert (main.name, approval.name) == ("retrain/asking", "promotion/asking-approval")
    there = ask(lambda client: client.read_deployment(approval.id))
    assert there.entrypoint == "flows.approval.promotion"
    (again, still), _ = deployed(path)
    assert (again.did, still.did) == ([], [])
    (main,), removed = deployed(path, "retrain.approval=none")
    assert main.did == ["updated: parameters"]
    assert removed == ["promotion/asking-approval: removed, the config has it no more"]


def test_one_that_runs_another_flow_now_is_no_second_one(written):
    path = written("moved", DEPLOYED)
    (before,), _ = deployed(path)
    (after,), removed = deployed(path, "deployment.flow=retrain")
    assert (before.name, after.name) == ("post-train/moved", "retrain/moved")
    assert removed == ["post-train/moved: removed, the config has it no more"]
    assert automations_of(before.id) == {}
    assert ask(lambda client: client.read_deployment(after.id)).parameters["overrides"] == [
        "deployment.flow=retrain"
    ]


def test_workers_may_find_the_config_elsewhere(written):
    path = written("elsewhere", "deployment: {flow: post-train, configs: [/etc/run.yaml]}\n")
    (first,), _ = deployed(path)
    there = ask(lambda client: client.read_deployment(first.id))
    assert there.parameters["configs"] == ["/etc/run.yaml"]


def test_too_much_for_prefect_is_said_before_it_is_sent(written):
    path = written("large", "deployment: {flow: post-train}\n")
    with pytest.raises(ConfigError, match="and Prefect takes 524288; put the settings into"):
        deployed(path, f"sample_logging.prompts=[{'x' * 600_000}]")


def test_a_mistake_in_an_override_is_found_before_a_run_is_there(written):
    (first,), _ = deployed(written("mistyped", "deployment: {flow: post-train}\n"))
    with pytest.raises(ConfigError, match=r"^--set train.max_step=3: .* did you mean 'max_steps'"):
        trigger(first, "train.max_step=3")
    assert runs_of(first.id) == []
    trigger(first, "train.max_steps=3")
    (run,) = runs_of(first.id)
    assert run.parameters["overrides"] == ["train.max_steps=3"]


def test_pause_and_resume_are_for_people_and_kept_by_deploy(written):
    path = written("paused", DEPLOYED)
    (first,), _ = deployed(path)
    assert command("pause", "paused") == (0, "paused: paused\n")
    assert command("pause", "paused") == (0, "paused: was paused\n")
    deployed(path, "seed=9")
    code, said = command("deployments", "--json")
    (record,) = [each for each in json.loads(said) if each["name"] == "paused"]
    assert (code, record["paused"], record["next_run"]) == (0, True, None)
    assert record["schedules"] == [
        "every day", "at 03:00 every day (Europe/Berlin)", "FREQ=WEEKLY;BYDAY=MO",
    ]  # fmt: skip
    assert command("resume", "paused") == (0, "paused: active\n")
    until(lambda: bool(runs_of(first.id)), "the scheduler")
    code, said = command("trigger", "paused")
    assert code == 0
    assert "it waits for `aligntune deploy --serve`" in said
    code, said = command("pause", "pawsed")
    assert code == 78
    assert "did you mean 'paused'?" in said
