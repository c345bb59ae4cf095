"""Downloads from a hub on 127.0.0.1, with the real client and real HTTP."""

import hashlib

import pytest
from own_process import loaded_by

from aligntune import hub
from aligntune.errors import ConfigError, DataError, ServiceError

MODEL = "me/tiny"
WEIGHTS = bytes(range(256)) * 5000
FILES = {
    "model.safetensors": WEIGHTS,
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "README.md": b"# tiny",
    "pytorch_model.bin": b"pickle",
    "modeling_tiny.py": b"import os",
    "onnx/config.json": b"{}",
    "onnx/model.safetensors": b"export",
    "additional_chat_templates/tools.jinja": b"{{ tools }}",
    "LICENSE": b"MIT",
    "consolidated.safetensors": b"twice",
}
LOADED = {
    *("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "LICENSE"),
    "additional_chat_templates/tools.jinja",
}


@pytest.fixture
def model(hub_server):
    hub_server.commit("model", MODEL, FILES)
    return hub_server


def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def blobs(tmp_path):
    return [p for p in (tmp_path / "hf" / "hub").rglob("blobs/*") if p.is_file()]


def test_a_branch_and_a_tag_are_pinned_to_the_commit_they_name_now(model):
    first = model.commits(MODEL)[-1]
    model.tag("model", MODEL, "v1")
    second = model.commit("model", MODEL, {"config.json": b"{}"})
    assert hub.commit_of(MODEL, "model", None) == second
    assert hub.commit_of(MODEL, "model", "main") == second
    assert hub.commit_of(MODEL, "model", "v1") == first


def test_a_commit_is_returned_without_a_request(hub_server):
    assert hub.commit_of("no/such", "model", "a" * 40) == "a" * 40
    assert hub_server.requests == []


def test_a_dataset_is_looked_up_among_datasets(hub_server):
    commit = hub_server.commit("dataset", "me/rows", {"train.json": b"[]"})
    assert hub.commit_of("me/rows", "dataset", None) == commit
    with pytest.raises(ConfigError, match="me/rows"):
        hub.commit_of("me/rows", "model", None)


def test_offline_the_commit_is_that_of_the_last_look_up(model, monkeypatch):
    commit = hub.commit_of(MODEL, "model", None)
    offline(monkeypatch)
    model.requests.clear()
    assert hub.commit_of(MODEL, "model", None) == commit
    assert model.requests == []


def test_offline_and_never_looked_up_says_what_to_do(hub_server, monkeypatch):
    offline(monkeypatch)
    with pytest.raises(ServiceError, match=r"HF_HUB_OFFLINE is set; run once without it"):
        hub.commit_of(MODEL, "model", None)


@pytest.mark.parametrize(
    ("repo_id", "revision", "says"),
    [
        ("me/nothing", None, r"model 'me/nothing' \(model.name_or_path\) is not on the hub"),
        (MODEL, "no-branch", "no such branch, tag or commit; fix its revision"),
        ("not a hub id", None, "write it as owner/name"),
    ],
)
def test_a_wrong_name_is_a_config_error_at_once(model, repo_id, revision, says):
    with pytest.raises(ConfigError, match=says):
        hub.commit_of(repo_id, "model", revision)
    assert len(model.requests) <= 1


def test_a_model_download_holds_what_a_causal_lm_needs_and_nothing_else(model, tmp_path):
    into = hub.download_model(MODEL, None, tmp_path / "model")
    assert names(into) == LOADED
    assert not any(path.is_symlink() for path in into.rglob("*"))
    assert all((into / name).read_bytes() == FILES[name] for name in LOADED)


def test_code_comes_along_only_when_asked_for(model, tmp_path):
    into = hub.download_model(MODEL, None, tmp_path / "model", allow_code=True)
    assert names(into) == LOADED | {"modeling_tiny.py"}


def test_weights_share_their_disk_space_with_the_cache_and_small_files_do_not(model, tmp_path):
    into = hub.download_model(MODEL, None, tmp_path / "model")
    assert (into / "model.safetensors").stat().st_nlink == 2
    assert (into / "config.json").stat().st_nlink == 1


def test_a_second_download_replaces_what_the_first_left(model, tmp_path):
    into = hub.download_model(MODEL, None, tmp_path / "model")
    (into / "config.json").write_text("torn")
    model.requests.clear()
    hub.download_model(MODEL, None, into)
    assert (into / "config.json").read_bytes() == FILES["config.json"]
    assert model.count("GET", "/resolve/") == 0


def test_a_pinned_revision_brings_that_commits_files(model, tmp_path):
    first = model.commits(MODEL)[0]
    model.commit("model", MODEL, {"config.json": b"new"})
    into = hub.download_model(MODEL, first, tmp_path / "model")
    assert (into / "config.json").read_bytes() == FILES["config.json"]


def test_a_model_of_pickles_is_refused(hub_server, tmp_path):
    hub_server.commit("model", MODEL, {"pytorch_model.bin": b"pickle", "config.json": b"{}"})
    with pytest.raises(ConfigError, match=r"no \*\.safetensors"):
        hub.download_model(MODEL, None, tmp_path / "model")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_tampered_file_of_the_right_size_is_refused(model, tmp_path, name):
    model.fail("tamper", method="GET", path=f"/resolve/.*{name}", times=2)
    with pytest.raises(DataError, match=f"'{name}' of commit .* arrived twice"):
        hub.download_model(MODEL, None, tmp_path / "model")
    assert not (tmp_path / "model" / name).exists()
    wrong = [p for p in blobs(tmp_path) if len(p.name) == 64]
    assert all(hashlib.sha256(p.read_bytes()).hexdigest() == p.name for p in wrong)


def test_a_file_that_went_bad_once_or_in_the_cache_is_fetched_again(model, tmp_path):
    model.fail("tamper", method="GET", path=r"model\.safetensors")
    into = hub.download_model(MODEL, None, tmp_path / "model")
    (into / "model.safetensors").unlink()
    next(p for p in blobs(tmp_path) if p.stat().st_size == len(WEIGHTS)).write_bytes(b"rot")
    into = hub.download_model(MODEL, None, tmp_path / "model")
    assert (into / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "short"])
def test_a_hub_that_stumbles_is_asked_again(model, tmp_path, fault):
    model.fail(fault, method="GET", path="config.json")
    model.fail(fault if isinstance(fault, int) else "cut", method="GET", path="/api/models")
    into = hub.download_model(MODEL, None, tmp_path / "model")
    assert (into / "config.json").read_bytes() == FILES["config.json"]


def test_offline_a_cached_model_is_used_and_a_missing_one_says_so(model, tmp_path, monkeypatch):
    hub.download_model(MODEL, None, tmp_path / "first")
    offline(monkeypatch)
    into = hub.download_model(MODEL, None, tmp_path / "second")
    assert names(into) == LOADED
    with pytest.raises(ServiceError, match="run once without it"):
        hub.download_model("me/other", "b" * 40, tmp_path / "third")


def test_offline_a_rotten_cache_is_noticed(model, tmp_path, monkeypatch):
    hub.download_model(MODEL, None, tmp_path / "first")
    (tmp_path / "first" / "model.safetensors").write_bytes(b"rot")
    offline(monkeypatch)
    with pytest.raises(ServiceError, match="not complete in the local cache"):
        hub.download_model(MODEL, None, tmp_path / "second")


def test_dataset_files_are_checked_too(hub_server):
    commit = hub_server.commit("dataset", "me/rows", {"a/train.jsonl.gz": b"rows", "b.json": b"[]"})
    found = hub.download_dataset("me/rows", commit, ["a/train.jsonl.gz"])
    assert found["a/train.jsonl.gz"].read_bytes() == b"rows"
    with pytest.raises(ConfigError, match=r"no file 'c\.json'"):
        hub.download_dataset("me/rows", commit, ["c.json"])
    hub_server.fail("tamper", method="GET", path=r"b\.json", times=2)
    with pytest.raises(DataError, match=r"b\.json"):
        hub.download_dataset("me/rows", commit, ["b.json"])


def test_importing_the_hub_loads_no_client():
    assert "huggingface_hub" not in loaded_by("aligntune.hub")
