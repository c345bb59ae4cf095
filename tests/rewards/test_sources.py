"""Reward models by name: what is refused before a run starts, and those of the registry."""

import json
import shutil

import pytest
from manifests import manifest
from mlflow import MlflowClient
from tiny import build_tiny_judge

from aligntune.artifacts import Artifact, records
from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError, ServiceError
from aligntune.registry import register_reward
from aligntune.rewards import scorer
from aligntune.rewards.sources import check_model, fingerprint, local
from aligntune.rewards.types import Sample
from aligntune.track import connect, experiment


@pytest.fixture
def judge(tmp_path):
    return build_tiny_judge(tmp_path / "judge" / "model")


def named(path, **params):
    return Reward(reward_type="model", model_name=str(path), params=params)


def changed(path, **settings):
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_a_reward_model_is_accepted(judge):
    check_model(named(judge))


def test_a_language_model_is_refused_before_anything_is_loaded(tiny_model):
    with pytest.raises(ConfigError, match="is a LlamaForCausalLM, which has no score head"):
        check_model(named(tiny_model))


def test_several_outputs_need_a_label(judge):
    changed(judge, id2label={"0": "GOOD", "1": "BAD"})
    with pytest.raises(ConfigError, match=r"labels good, bad; say which"):
        check_model(named(judge))
    check_model(named(judge, label="good"))


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (("tokenizer.json", "tokenizer_config.json"), "has no tokenizer"),
        (("chat_template.jinja",), "has no chat template"),
        (("model.safetensors",), "save the model as safetensors"),
    ],
)
def test_what_a_reward_model_lacks_is_named(judge, gone, said):
    for name in gone:
        (judge / name).unlink()
    with pytest.raises(ConfigError, match=said):
        check_model(named(judge))


def test_scores_that_nothing_normalises_are_explained(judge):
    found = scorer(named(judge, normalize=True))
    with pytest.raises(ConfigError, match=r"has no reward_normalization\.json"):
        found([Sample("a", "b")])
    (judge / "reward_normalization.json").write_text('{"mean": 1, "std": 0}')
    with pytest.raises(ConfigError, match="no `std` above 0"):
        scorer(named(judge, normalize=True))([Sample("a", "b")])


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """(where its database is, a folder of its own, an MLflow run); making one takes seconds."""
    root = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = connect(uri, root)
    return uri, root, client.create_run(experiment(client, uri, root)).info.run_id


def registered(judge, registry, name, key="0a1b2c3d4e5f", **metrics):
    uri, root, run = registry
    facts = {"data_digests": {"train": "ab12"}, "mlflow_run_id": run}
    known = {"metrics": metrics, "facts": facts, "files": records(judge.parent)}
    folder = root / name / f"reward-{key}"
    if not folder.exists():
        shutil.copytree(judge.parent, folder)
    return register_reward(name, Artifact(folder, manifest("reward", key, **known)), uri, root)


def test_a_registered_model_is_found_by_alias_and_by_version(judge, registry, tmp_path):
    facts = registered(judge, registry, "good", **{"accuracy": 0.7, "accuracy/low": 0.6})
    assert facts["aliases"] == {"candidate": "1", "champion": "1"}
    by_alias, by_version = (named(f"models:/good{end}") for end in ("@candidate", "/1"))
    uri = registry[0]
    pinned = fingerprint(by_alias, uri)
    assert pinned.startswith("registered:good/1:")
    assert fingerprint(by_version, uri) == pinned
    found = local(by_alias, pinned, tmp_path / "into", uri=uri)
    check_model(found)
    assert scorer(found)([Sample("a", "b")]) == scorer(named(judge))([Sample("a", "b")])


def test_a_run_keeps_the_version_that_it_was_planned_with(judge, registry, tmp_path):
    registered(judge, registry, "moving")
    name, uri = named("models:/moving@candidate"), registry[0]
    pinned = fingerprint(name, uri)
    changed(judge, id2label={"0": "OTHER"})
    registered(judge, registry, "moving", key="ffffffffffff")
    assert fingerprint(name, uri) != pinned
    local(name, pinned, tmp_path / "into", uri=uri)
    assert "OTHER" not in (tmp_path / "into" / "config.json").read_text()


def test_registering_twice_makes_one_version_and_a_coin_is_no_champion(judge, registry):
    for _ in range(2):
        facts = registered(judge, registry, "coin", **{"accuracy": 0.55, "accuracy/low": 0.45})
        assert facts["aliases"] == {"candidate": "1"}
    client = MlflowClient(tracking_uri=registry[0], registry_uri=registry[0])
    (version,) = client.search_model_versions("name = 'coin'")
    assert version.tags["metric.accuracy"] == "0.55"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("models:/toy.reward@nobody", "is not in the model registry"),
        ("models:/toy.reward/7", "is not in the model registry"),
        ("models:/toy.reward", "write `models:/name@alias`"),
    ],
)
def test_a_name_that_the_registry_does_not_have_is_explained(registry, name, said):
    with pytest.raises(ConfigError, match=said):
        fingerprint(named(name), registry[0])


def test_a_registry_that_is_away_may_come_back(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ServiceError, match="MLflow failed"):
        fingerprint(named("models:/toy.reward@candidate"), "http://127.0.0.1:9")
