"""What the commands about deployments say where they cannot do what is asked."""

import pytest

CONFIG = """
algo: dpo
model: {{name_or_path: {model}}}
datasets: [{{name: "arithmetic:"}}]
logging: {{output_dir: {output}, run_name: nightly}}
"""
VERBS = [
    ("deploy", "--config", "{config}"),
    ("deployments",),
    ("trigger", "nightly"),
    ("pause", "nightly"),
    ("resume", "nightly"),
    ("emit", "data.published", "--resource", "dataset.pairs"),
]


@pytest.fixture
def config(tiny_model, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(model=tiny_model, output=tmp_path / "out"))
    return path


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_without_a_server_each_says_how_to_have_one(run, config, monkeypatch, tmp_path, verb):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    code, _, said = run(*(word.format(config=config) for word in verb))
    assert code == 78
    assert "PREFECT_API_URL" in said.splitlines()[-1]
    assert "prefect server start" in said
    assert "Traceback" not in said


def test_a_pool_and_this_process_are_one_too_many(run, config):
    code, _, said = run("deploy", "--config", config, "--pool", "gpu", "--serve")
    assert code == 78
    assert "the workers of pool 'gpu' would run it too" in said


def test_a_mistake_in_a_schedule_is_found_before_a_server_is_asked(run, config):
    config.write_text(config.read_text() + "schedules: [{cron: 0 3 * * *, timezone: Mars}]\n")
    code, _, said = run("deploy", "--config", config)
    assert code == 78
    assert "schedules.0.timezone: there is no time zone 'Mars'" in said


def test_a_payload_is_keys_and_values(run):
    code, _, said = run("emit", "e", "--resource", "r", "--payload", "revision")
    assert code == 78
    assert "'revision' is no KEY=VALUE" in said


def test_what_is_only_on_the_workers_is_not_looked_for_here(run, config, monkeypatch, tmp_path):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    config.write_text(config.read_text().replace('"arithmetic:"', "/data/pairs.jsonl"))
    where = "deployment.configs=[/data/run.yaml]"
    assert "/data/pairs.jsonl" in run("deploy", "-c", config, "--set", "deployment.pool=k8s")[2]
    said = run("deploy", "-c", config, "--set", "deployment.pool=k8s", "--set", where)[2]
    assert "PREFECT_API_URL" in said
    assert "/data/pairs.jsonl" not in said


def test_a_retraining_that_could_promote_nothing_is_not_deployed(run, config):
    code, _, said = run("deploy", "-c", config, "--set", "registry.promote=never")
    assert code == 78
    assert "`promote: auto` or `manual`" in said
