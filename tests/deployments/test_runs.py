"""Schedules, events and people start runs of a deployment on a real Prefect server, one at a time,
whatever happens to their processes."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from deployments.deployed import (
    DEPLOYED,
    PATIENCE,
    ask,
    command,
    held,
    kill,
    runs_of,
    state_of,
    states_of,
    trigger,
    wait_for,
)
from waits import until

pytestmark = pytest.mark.slow


def test_a_schedule_starts_a_real_run_and_an_event_another(written):
    text = DEPLOYED.partition("schedules:")[0]
    path = written("real", text + "schedules: [{interval: 40, slug: often, set: {seed: 4}}]\n")
    log = path.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "aligntune", "deploy", "-c", str(path), "--serve"],
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: "serving" in log.read_text(), "deploy --serve", PATIENCE)
        deployment = ask(lambda client: client.read_deployment_by_name("post-train/real")).id
        until(lambda: "Completed" in states_of(deployment), "a scheduled run", PATIENCE)
        runs = runs_of(deployment)
        done = next(run for run in runs if run.state.name == "Completed")
        assert done.auto_scheduled
        assert done.parameters["overrides"] == ["seed=4"]
        assert (path.parent / "out" / "runs" / "real" / "model").is_dir()
        assert command("pause", "real")[0] == 0
        payload = ("--payload", "seed=4")
        assert command("emit", "data.published", "--resource", "other", *payload)[0] == 0
        assert command("emit", "data.published", "--resource", "dataset.pairs", *payload)[0] == 0
        until(lambda: bool(by_event(deployment)), "the event", PATIENCE)
        (run,) = by_event(deployment)
        assert run.parameters["overrides"] == ["seed=4"]
    finally:
        kill(process)


def by_event(deployment):
    return [run for run in runs_of(deployment) if not run.auto_scheduled]


def test_a_run_is_refused_while_another_goes_on(nap, served):
    done = nap("refusing", 300)
    served(done)
    first = trigger(done)
    wait_for(first, "Running")
    held(done)
    code, said = command("trigger", "refusing", "--watch")
    assert code == 75
    assert f"Overlapping  {ask(lambda c: c.read_flow_run(first.id)).name} ({first.id}) goes" in said
    assert state_of(first).name == "Running"


def test_a_run_waits_for_another_and_can_be_cancelled_meanwhile(nap, served):
    from prefect.states import Cancelling

    def cancel(run):
        ask(lambda client: client.set_flow_run_state(run.id, Cancelling()))
        assert wait_for(run, "Cancelled", "Completed").name == "Cancelled"

    done = nap("queueing", 300)
    served(done)
    first = trigger(done)
    wait_for(first, "Running")
    second = trigger(done, "deployment.overlap=queue", "train.max_steps=1")
    third = trigger(done, "deployment.overlap=queue", "train.max_steps=1")
    assert str(first.id) in wait_for(second, "Waiting", "Completed").message
    wait_for(third, "Waiting")
    cancel(third)
    assert state_of(second).name == "Waiting"
    cancel(first)
    code, said = command("deployments")
    assert code == 0
    assert "queueing" in said
    assert wait_for(second, "Completed", "Failed", "Crashed").name == "Completed"


def test_after_kill_9_the_next_run_takes_over_and_says_what_happened(nap, served):
    done = nap("killed", 300)
    process = served(done)
    first = trigger(done)
    wait_for(first, "Running")
    lock = held(done)
    kill(process)
    assert state_of(first).name == "Running"  # for all that Prefect knows
    served(done)
    second = trigger(done, "train.max_steps=1")
    assert wait_for(second, "Completed", "Overlapping").name == "Completed"
    dead = state_of(first)
    assert (dead.name, dead.message) == (
        "Crashed", "its process was killed: it holds its lock no more",
    )  # fmt: skip
    assert json.loads(lock.read_text())["ended"] is True


def test_who_serves_ends_what_it_runs_before_it_ends(nap, served):
    done = nap("served", 300)
    process = served(done)
    first = trigger(done)
    wait_for(first, "Running")
    held(done)
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert state_of(first).name == "Crashed"  # at once: a nap does not listen to SIGTERM


def test_a_run_that_is_lost_is_crashed_although_nobody_comes_back(nap, served, environment):
    import flows.automations

    environment.setattr(flows.automations, "LOST_AFTER", 20)
    environment.setattr(flows.automations, "MISSED", 0)
    done = nap("lost", 300)
    process = served(done)
    first = trigger(done)
    wait_for(first, "Running")
    held(done)
    kill(process)
    assert wait_for(first, "Crashed").message.startswith("no heartbeat for 20 s")


def test_a_worker_runs_it_in_the_directory_that_it_was_deployed_from(nap, tmp_path, monkeypatch):
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name="here", type="process", base_job_template=template)
    ask(lambda client: client.create_work_pool(pool))
    monkeypatch.chdir(tmp_path)
    done = nap("relative", 1, "", "deployment.pool=here", "logging.output_dir=./below")
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "here"],
        start_new_session=True,
        cwd=tmp_path.parent,
    )
    try:
        assert wait_for(trigger(done), "Completed", "Failed", "Crashed").name == "Completed"
    finally:
        kill(worker)
    assert (tmp_path / "below" / ".locks" / f"{done.id}.json").exists()


def test_of_missed_times_only_the_latest_of_each_schedule_is_made_up_for(nap, monkeypatch):
    import flows.serve

    later = datetime.now(UTC) + timedelta(days=30)
    rule = f"DTSTART:{later:%Y%m%dT%H%M%S}\\nRRULE:FREQ=HOURLY;COUNT="
    schedules = f'[{{rrule: "{rule}3"}}, {{rrule: "{rule}1", set: {{seed: 7}}}}]'
    done = nap("missed", 1, f"schedules: {schedules}\n")
    until(lambda: len(runs_of(done.id)) == 4, "the scheduler", PATIENCE)

    class Clock(datetime):
        @classmethod
        def now(cls, zone=None):
            return later + timedelta(days=1)

    monkeypatch.setattr(flows.serve, "datetime", Clock)
    asyncio.run(flows.serve._skip_missed(done))
    often, once = [], []
    for run in runs_of(done.id):
        (once if "seed=7" in run.parameters["overrides"] else often).append(run.state.name)
    assert (often, once) == (["Missed", "Missed", "Scheduled"], ["Scheduled"])
