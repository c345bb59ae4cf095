"""A real training whose MLflow goes away behind a proxy, in every way a server does.

    FAULT_POINTS=200 pytest tests/faults/test_outages.py    five minutes without it, every cut

Each trial prints what it measured (pytest -s).
"""

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from local import free_ports
from manifests import manifest
from mlflow import MlflowClient
from proxy import Proxy
from waits import until

from aligntune import courier, promotion, registry, track
from aligntune.artifacts import WORK, commit, digest_of, find, partial, records
from aligntune.config.load import load
from aligntune.errors import ServiceError
from aligntune.journal import FILE, Journal, complete_lines, read
from aligntune.outbox import Outbox, continued, new_record
from aligntune.paths import tracking_identity, tracking_uri
from aligntune.plan import plan
from aligntune.run import execute
from aligntune.session import preparing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

POINTS = int(os.environ.get("FAULT_POINTS", "6"))
SEED = int(os.environ.get("FAULT_SEED", str(random.SystemRandom().randrange(10**6))))
LARGE = POINTS >= 200
SHORT = 3.0
"""Seconds of an outage that a step of this training would be noticed to wait for."""
TIMEOUT = 45.0
"""Seconds after which MLflow's client gives a silent server up."""
LONGEST_END = 60.0
"""Seconds that MLflow's absence may add to a run."""
STEPS, BREAK, LATE = 60, 10, 30
"""Of a training, and before the line breaks: as late where MLflow is slow."""
PAUSE = 0.1
"""Seconds that a step of a larger model would take longer."""
CONFIG = """
algo: sft
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
datasets: [{{name: "arithmetic:", params: {{count: 64, seed: 1}}}}]
train: {{per_device_batch_size: 4, max_steps: {steps}, learning_rate: 1e-3}}
logging: {{output_dir: {output}, run_name: tiny, save_steps: 100000, eval_steps: 100000}}
"""


@dataclass(frozen=True)
class Step:
    at: float
    own: float
    """Seconds that it took, without those in which it was queued for a processor: what a busy
    machine takes is not counted."""
    blocked: float
    """Seconds in which the training waited, and not for a processor."""


@dataclass(frozen=True)
class Trained:
    weights: str
    """Digest of the model's files."""
    before: list[Step]
    since: list[Step]
    """From when the line broke."""
    after: float
    """Seconds from the trained model to the end."""


class Watch:
    """Every step of a training, as the thread that trains spends it."""

    def __init__(self, patch):
        self.steps, self._last = [], None
        write = Journal.write

        def watched(journal, step, metrics):
            now = self._now()
            if "train/loss" in metrics and self._last:
                wall, cpu, queued = (b - a for a, b in zip(self._last, now, strict=True))
                self.steps.append(Step(time.time(), wall - queued, wall - cpu - queued))
            write(journal, step, metrics)
            if "train/loss" in metrics:
                time.sleep(PAUSE)
                self._last = self._now()

        patch.setattr(Journal, "write", watched)

    @staticmethod
    def _now():
        cpu, queued = Path("/proc/thread-self/schedstat").read_text().split()[:2]
        return time.monotonic(), int(cpu) / 1e9, int(queued) / 1e9


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The port of an MLflow server on SQLite."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_ports(1)
    place = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination"]
    command = ["server", *place, str(folder / "files"), "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "--workers", "1"],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: answers(port), "MLflow's start")
        yield port
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


def answers(port):
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


@pytest.fixture
def line(server, monkeypatch):
    with Proxy(server) as line:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", line.url)
        yield line


@pytest.fixture(scope="module")
def undisturbed(server, tiny_model, tmp_path_factory):
    """The same training with MLflow there: what it ends with, and a folder to start others from."""
    output = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server}")
        return train(patch, tiny_model, output, STEPS), output


def train(patch, model, output, steps, outage=None):
    """Train up to the sft stage as `train` does, and break the line meanwhile."""
    file = output.with_suffix(".yaml")
    file.write_text(CONFIG.format(model=model, output=output, steps=steps))
    planned = plan(load([file]))
    wanted = planned.stages[: [each.stage.label for each in planned.stages].index("sft") + 1]
    broken, watch = [], Watch(patch)
    with preparing(planned, "train", "data") as session:
        with outage(output, broken) if outage else nothing():
            for each in wanted:
                execute(each.stage, session.context, lambda *_: None, lambda: False)
        ended = time.monotonic()
    after = time.monotonic() - ended
    made = find(session.context.stages, "sft", wanted[-1].stage.key, verify=True)
    border = broken[0] if broken else time.time()
    before = [step for step in watch.steps if step.at < border]
    since = [step for step in watch.steps if step.at >= border]
    return Trained(digest_of(records(made.path / "model")), before, since, after)


@contextmanager
def nothing():
    yield


def away(line, mode, seconds):
    """Breaks the line after the tenth step, when points of it have arrived; for good where there
    are no `seconds`, else until somebody has asked for something."""

    @contextmanager
    def outage(output, broken):
        def watch():
            until(lambda: len(logged(output)) >= (BREAK if begun(output) else LATE), "steps", 600)
            broken.append(time.time())
            before = line.exchanges + line.refused
            line.set(mode)
            if seconds:
                time.sleep(seconds)
                until(lambda: line.exchanges + line.refused > before, "somebody who asks", 120)
                line.set("pass")

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    return outage


def begun(output):
    """Whether MLflow has all of the stages before, and points of the training."""
    outbox = Outbox(output)
    waiting = outbox.waiting(tracking_identity())
    points = [outbox.sent(record.id).offsets.get("metrics") for record in waiting]
    return any(points) and all(record.status == "RUNNING" for record in waiting)


def logged(output):
    found = list((output / "stages").glob("sft-*/metrics.jsonl"))
    return complete_lines(found[0]) if found else []


def arrived(client):
    """Journal points, with how often MLflow has each, of the sft stage that began last."""
    where = client.get_experiment_by_name("aligntune").experiment_id
    runs = client.search_runs([where], "tags.`aligntune.stage` = 'sft'", max_results=1)
    points = Counter(
        (name, point.step, point.timestamp, point.value)
        for name in runs[0].data.metrics
        for point in client.get_metric_history(runs[0].info.run_id, name)
        if "/" in name and not name.startswith("system/")
    )
    same = f"tags.`aligntune.id` = '{runs[0].data.tags['aligntune.id']}'"
    return points, client.search_runs([where], same), runs[0].data.tags["aligntune.artifact"]


def expected(output, name):
    return Counter(
        (name, row.step, row.time, value)
        for row in read(output / "stages" / name / "metrics.jsonl")
        for name, value in row.metrics.items()
    )


def prepared(undisturbed, output):
    """An output directory where the stages before the training are done."""
    for made in (undisturbed[1] / "stages").iterdir():
        if not made.name.startswith(("sft-", ".")):
            shutil.copytree(made, output / "stages" / made.name)
    return output


WAYS = [("stall", SHORT), ("cut", SHORT), ("refuse", SHORT), ("stall", None)]
MORE = [
    *[(mode, 20.0) for mode in ("refuse", "503", "slow", "deaf", "stall", "cut", "torn")],
    ("refuse", 300.0), ("refuse", None), ("503", None),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "seconds"), WAYS + MORE * LARGE)
def test_mlflow_away_costs_no_point_no_model_and_no_step_waits(
    mode, seconds, line, undisturbed, tiny_model, tmp_path, monkeypatch
):
    reference, _ = undisturbed
    output = prepared(undisturbed, tmp_path / "out")
    if seconds == SHORT:  # else it would be over before there are points to send
        monkeypatch.setattr(courier, "_EVERY", SHORT / 6)
        monkeypatch.setattr(courier, "_REST", SHORT / 6)
    # Training goes on for a while after the outage.
    steps = max(STEPS, BREAK + int(1.1 * (seconds or 0) / PAUSE))
    made = train(monkeypatch, tiny_model, output, steps, away(line, mode, seconds))
    line.set("pass")
    found = courier.sync(tracking_uri(output), output, tracking_identity())
    assert (found.going, found.elsewhere) == (0, {})
    points, runs, name = arrived(MlflowClient(line.url))
    journal = expected(output, name)
    lost, more = journal - points, points - journal
    waited = [max(step.blocked for step in steps) for steps in (made.before, made.since)]
    slowest = [max(step.own for step in steps) for steps in (made.before, made.since)]
    print(  # noqa: T201
        f"\n{mode} {seconds or 'for good'}: {steps} steps, {len(journal)} points, {len(lost)} "
        f"lost, {len(more)} doubled, {len(runs)} run, {found.sent} records by sync; a step waited "
        f"{waited[1]:.3f} s at most ({waited[0]:.3f} s before), the slowest took {slowest[1]:.3f} s"
        f" ({slowest[0]:.3f} s); {made.after:.1f} s from the model to the end"
    )
    assert not lost
    assert not more
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert (found.sent > 0) == (seconds is None)
    assert made.after < LONGEST_END
    if seconds is None:  # a client that waits does so for longer than a busy machine's disk
        assert waited[1] < TIMEOUT / 2
    if steps == STEPS:
        assert made.weights == reference.weights


@pytest.mark.parametrize("mode", ["cut", "torn", "deaf"])
def test_a_run_that_begins_while_answers_are_lost_is_there_once_and_whole(mode, line, tmp_path):
    outbox, uri = Outbox(tmp_path), line.url
    beside = courier.Courier(uri, tmp_path, tracking_identity())
    before, record = (stage_record(name) for name in ("before", mode))
    outbox.write(before)
    beside.round()  # it has found the experiment
    outbox.write(record)
    with outbox.held(record.id):
        out = partial(tmp_path / "stages", "sft", mode)
        continued(outbox, out / WORK, record)
        journal = Journal(out / FILE)
        for step in range(BREAK):
            journal.write(step, {"train/loss": step / BREAK})
        journal.close()
        line.set(mode)
        for _ in range(3):
            with pytest.raises(ServiceError):
                beside.round()
        line.set("pass")
        beside.round()
    client = MlflowClient(uri)
    where = client.get_experiment_by_name("aligntune").experiment_id
    (run,) = client.search_runs([where], f"tags.`aligntune.id` = '{record.id}'")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in history] == list(range(BREAK))


def stage_record(name):
    return new_record(role="stage", name="sft", store=tracking_identity(), artifact=f"sft-{name}")


def test_a_line_cut_between_any_two_calls_registers_and_promotes_once(line, tmp_path):
    print(f"FAULT_SEED={SEED}")  # noqa: T201  # shown if the test fails
    rng = random.Random(SEED)
    client = track.connect(line.url, tmp_path)
    run = client.create_run(track.experiment(client, line.url, tmp_path)).info.run_id
    policy(tmp_path / "stages", "whole", run)
    began = line.exchanges
    assert registered(line, tmp_path, "whole") == []
    calls = line.exchanges - began
    places = [(n, half) for n in range(1, calls + 1) for half in ("request", "answer")]
    chosen = places if LARGE else sorted(rng.sample(places, POINTS))
    failed = 0
    for number, (call, half) in enumerate(chosen):
        policy(tmp_path / "stages", f"m{number}", run)
        line.doom(call, half)
        failed += bool(registered(line, tmp_path, f"m{number}"))
        assert registered(line, tmp_path, f"m{number}") == [], f"again after {half} {call}"
    print(f"\n{calls} calls, {len(chosen)} cuts, {failed} failed and were repeated")  # noqa: T201
    assert failed > (len(chosen) / 2 if LARGE else 0)  # not every call is one that has to succeed


def registered(line, root, name):
    """Register and promote a model as two stages do; what went wrong, nothing if all is there."""
    made = find(root / "stages", "sft", name)
    uri = line.url
    try:
        facts = registry.register(name, {"sft": made}, uri, root)
        promotion.promote(name, facts["versions"]["sft"], uri, root, reason="it is the first")
    except ServiceError as error:
        line.heal()
        return [str(error)]
    line.heal()
    client = MlflowClient(uri, uri)
    (version,) = client.search_model_versions(f"name = '{name}'")
    held = client.get_registered_model(name).aliases
    assert {alias: str(number) for alias, number in held.items()} == {
        "candidate": version.version, "champion": version.version
    }  # fmt: skip
    into = root / "got" / name
    registry.fetch(name, version.version, uri, root / "elsewhere", into)
    assert digest_of(records(into)) == version.tags["aligntune.sha256"]
    shutil.rmtree(into)
    return []


def policy(stages, key, run):
    folder = partial(stages, "sft", key) / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_text(f"weights of {key}")
    (folder / "config.json").write_text("{}")
    return commit(folder.parent, manifest("sft", key, facts={"mlflow_run_id": run}))
