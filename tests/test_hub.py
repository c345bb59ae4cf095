"""Downloads and pushes against a hub on 127.0.0.1, with the real client and real HTTP."""

import errno
import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loopback_hub import TOKEN, LoopbackHub

from aligntune import hub
from aligntune.errors import ConfigError, DataError, ResourceError, ServiceError

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
REAL_TREE = Path(__file__).parents[2] / "shared" / "hub"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub that the client here talks to, with an empty cache and two seconds of patience."""
    with LoopbackHub() as server:
        server.connect(monkeypatch, tmp_path)
        monkeypatch.setenv("ALIGNTUNE_HUB_BUDGET", "2")
        yield server


@pytest.fixture
def model(server):
    server.commit("model", MODEL, FILES)
    return server


@pytest.fixture
def trained(tmp_path):
    """A directory as training leaves it: a model among things that are nobody's business."""
    folder = tmp_path / "out" / "model"
    files = {
        "model.safetensors": WEIGHTS,
        "config.json": b"{}",
        "README.md": b"---\ntags: [x]\n---\n# tiny",
        "training_args.bin": b"secret",
        "optimizer.pt": b"pickle",
        "rng_state.pth": b"pickle",
        "scheduler.pt": b"pickle",
        ".env": b"PASSWORD=1",
        ".cache/x.json": b"{}",
        "checkpoint-10/model.safetensors": b"older",
        "checkpoint-10/optimizer.bin": b"pickle",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def blobs(tmp_path):
    return [p for p in (tmp_path / "hf" / "hub").rglob("blobs/*") if p.is_file()]


# Which commit.


def test_a_branch_and_a_tag_are_pinned_to_the_commit_they_name_now(model):
    first = model.commits(MODEL)[-1]
    model.tag("model", MODEL, "v1")
    second = model.commit("model", MODEL, {"config.json": b"{}"})
    assert hub.commit_of(MODEL, "model", None) == second
    assert hub.commit_of(MODEL, "model", "main") == second
    assert hub.commit_of(MODEL, "model", "v1") == first


def test_a_commit_is_returned_without_a_request(server):
    assert hub.commit_of("no/such", "model", "a" * 40) == "a" * 40
    assert server.requests == []


def test_a_dataset_is_looked_up_among_datasets(server):
    commit = server.commit("dataset", "me/rows", {"train.json": b"[]"})
    assert hub.commit_of("me/rows", "dataset", None) == commit
    with pytest.raises(ConfigError, match="me/rows"):
        hub.commit_of("me/rows", "model", None)


def test_offline_the_commit_is_that_of_the_last_look_up(model, monkeypatch):
    commit = hub.commit_of(MODEL, "model", None)
    offline(monkeypatch)
    model.requests.clear()
    assert hub.commit_of(MODEL, "model", None) == commit
    assert model.requests == []


def test_offline_and_never_looked_up_says_what_to_do(server, monkeypatch):
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


# Downloads.


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


def test_a_model_of_pickles_is_refused(server, tmp_path):
    server.commit("model", MODEL, {"pytorch_model.bin": b"pickle", "config.json": b"{}"})
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


def test_dataset_files_are_checked_too(server):
    commit = server.commit("dataset", "me/rows", {"a/train.jsonl.gz": b"rows", "b.json": b"[]"})
    found = hub.download_dataset("me/rows", commit, ["a/train.jsonl.gz"])
    assert found["a/train.jsonl.gz"].read_bytes() == b"rows"
    with pytest.raises(ConfigError, match=r"no file 'c\.json'"):
        hub.download_dataset("me/rows", commit, ["c.json"])
    server.fail("tamper", method="GET", path=r"b\.json", times=2)
    with pytest.raises(DataError, match=r"b\.json"):
        hub.download_dataset("me/rows", commit, ["b.json"])


# Retries and refusals.


def test_the_budget_ends_the_retries_with_the_service_exit_code(server, monkeypatch):
    monkeypatch.setenv("ALIGNTUNE_HUB_BUDGET", "0.6")
    server.fail(503, times=1000)
    start = time.monotonic()
    with pytest.raises(ServiceError, match=r"within 0.6 s \(HTTP 503\); run again later") as caught:
        hub.commit_of(MODEL, "model", None)
    assert caught.value.exit_code == 69
    assert time.monotonic() - start < 3
    assert len(server.requests) > 1


def test_a_hub_that_accepts_and_then_says_nothing_counts_as_cut(model, monkeypatch):
    monkeypatch.setenv("ALIGNTUNE_HUB_BUDGET", "0.4")
    model.fail("stall", times=1000)
    with pytest.raises(ServiceError, match="Timeout"):
        hub.commit_of(MODEL, "model", None)


def test_the_wait_is_the_one_the_server_asks_for_and_is_logged(model, caplog):
    model.fail(429, path="/api/models", headers={"Retry-After": "1"})
    start = time.monotonic()
    hub.commit_of(MODEL, "model", None)
    assert time.monotonic() - start >= 1
    (record,) = [r for r in caplog.records if r.name.startswith("aligntune")]
    assert "HTTP 429; trying again in 1." in record.getMessage()
    assert MODEL in record.getMessage()


def test_a_rate_limit_window_is_waited_for(model):
    model.fail(429, path="/api/models", headers={"RateLimit": '"api";r=0;t=1'})
    start = time.monotonic()
    hub.commit_of(MODEL, "model", None)
    assert time.monotonic() - start >= 1


def test_a_wait_beyond_the_budget_is_not_begun(model):
    model.fail(429, path="/api/models", headers={"Retry-After": "3600"})
    start = time.monotonic()
    with pytest.raises(ServiceError, match="HTTP 429"):
        hub.commit_of(MODEL, "model", None)
    assert time.monotonic() - start < 1


def test_nobody_listening_is_a_service_error(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ServiceError, match="ConnectError"):
        hub.commit_of(MODEL, "model", None)


def test_an_endpoint_without_a_scheme_is_a_config_error(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "localhost:8000")
    with pytest.raises(ConfigError, match="HF_ENDPOINT must start with"):
        hub.commit_of(MODEL, "model", None)


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf"])
def test_a_budget_that_is_no_time_is_a_config_error(server, monkeypatch, text):
    monkeypatch.setenv("ALIGNTUNE_HUB_BUDGET", text)
    with pytest.raises(ConfigError, match="ALIGNTUNE_HUB_BUDGET"):
        hub.commit_of(MODEL, "model", None)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_access_names_the_variable_but_never_the_token(model, status):
    model.fail(status, message=f"your token {TOKEN} may not")
    with pytest.raises(ConfigError, match="set HF_TOKEN to a token that may use it") as caught:
        hub.commit_of(MODEL, "model", None)
    assert TOKEN not in str(caught.value)
    assert caught.value.exit_code == 78
    assert len(model.requests) == 1


def test_a_gated_and_a_private_model_say_what_to_do(model, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    model.repos["model", MODEL].gated = True
    with pytest.raises(ConfigError, match="is gated; accept its terms"):
        hub.commit_of(MODEL, "model", None)
    model.repos["model", MODEL].private = True
    with pytest.raises(ConfigError, match="set HF_TOKEN if it is private"):
        hub.commit_of(MODEL, "model", None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hub.commit_of(MODEL, "model", None) == model.commits(MODEL)[-1]


@pytest.mark.parametrize("status", [400, 404, 410, 418, 451])
def test_an_answer_that_no_waiting_changes_ends_the_download_at_once(model, tmp_path, status):
    model.fail(status, times=1000)
    with pytest.raises(ConfigError, match=f"is refused with HTTP {status}"):
        hub.download_model(MODEL, None, tmp_path / "model")
    assert len(model.requests) == 1


def test_errors_that_are_not_the_hubs_pass_unchanged(server):
    def broken():
        raise RuntimeError("ours")

    def missing():
        Path("/no/such/file").read_text()

    def refused():
        raise DataError("row 3")

    with pytest.raises(RuntimeError, match="ours"):
        hub.retrying(broken, "x")
    with pytest.raises(FileNotFoundError):
        hub.retrying(missing, "x")
    with pytest.raises(DataError, match="row 3"):
        hub.retrying(refused, "x")


def test_a_full_disk_is_not_retried(server):
    attempts = []

    def full():
        attempts.append(1)
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/blob")

    with pytest.raises(ResourceError, match="No space left on device at /cache/blob"):
        hub.retrying(full, "model 'me/tiny'")
    assert attempts == [1]


# Pushes.


def test_a_push_is_one_commit_of_the_model_and_nothing_private(server, trained):
    receipt = hub.push(trained, "me/new", private=True, message="Trained")
    pushed = server.files("model", "me/new")
    assert set(pushed) - {".gitattributes"} == {"model.safetensors", "config.json", "README.md"}
    assert pushed["model.safetensors"] == WEIGHTS
    assert len(server.commits("me/new")) == 2
    assert receipt.commit == server.commits("me/new")[-1]
    assert receipt.url == f"{server.url}/me/new/tree/{receipt.commit}"
    assert (receipt.repo_id, receipt.files) == ("me/new", 3)
    assert server.repos["model", "me/new"].private


def test_pushing_the_same_again_makes_no_commit(server, trained):
    first = hub.push(trained, "me/new", private=True, message="Trained")
    server.requests.clear()
    assert hub.push(trained, "me/new", private=True, message="Again") == first
    assert server.count("POST", "/commit/") == 0


def test_a_push_replaces_older_weights_and_leaves_other_files(server, trained):
    older = {"model-00001-of-00002.safetensors": b"x", "model.safetensors.index.json": b"{}"}
    server.commit("model", MODEL, {**older, "pytorch_model.bin": b"x", "LICENSE": b"MIT"})
    hub.push(trained, MODEL, private=False, message="Trained")
    assert set(server.files("model", MODEL)) == {
        *("model.safetensors", "config.json", "README.md", "LICENSE")
    }
    assert len(server.commits(MODEL)) == 2


@pytest.mark.parametrize("fault", [503, "lost"])
@pytest.mark.parametrize("path", ["/repos/create", "/preupload/", "/lfs/objects", "/commit/"])
def test_an_interrupted_push_is_repeated_and_still_one_commit(server, trained, fault, path):
    server.fail(fault, path=path)
    receipt = hub.push(trained, "me/new", private=True, message="Trained")
    assert server.commits("me/new")[1:] == [receipt.commit]
    assert server.files("model", "me/new")["model.safetensors"] == WEIGHTS


def test_a_push_that_lost_a_race_starts_over_from_the_new_main(server, trained, monkeypatch):
    hub.push(trained, "me/new", private=True, message="Trained")
    (trained / "config.json").write_text('{"a": 1}')
    take = server.take_fault

    def race(method, path):
        if "/preupload/" in path and len(server.commits("me/new")) == 2:
            server.commit("model", "me/new", {"NOTES.txt": b"someone else's"})
        return take(method, path)

    monkeypatch.setattr(server, "take_fault", race)
    hub.push(trained, "me/new", private=True, message="Trained more")
    assert len(server.commits("me/new")) == 4
    assert {"NOTES.txt", "config.json"} <= set(server.files("model", "me/new"))


def test_a_commit_that_lacks_a_file_is_reported(server, trained, monkeypatch):
    from loopback_store import Repo

    add = Repo.add

    def forget(repo, tree, message):
        return add(repo, {n: blob for n, blob in tree.items() if n != "config.json"}, message)

    monkeypatch.setattr(Repo, "add", forget)
    with pytest.raises(ServiceError, match=r"does not hold 'config\.json' as it was sent"):
        hub.push(trained, "me/new", private=True, message="Trained")


def test_a_private_push_never_goes_to_a_public_repository(server, trained):
    server.commit("model", MODEL, {"LICENSE": b"MIT"})
    with pytest.raises(ConfigError, match=r"is public, but logging\.hub_private is true"):
        hub.push(trained, MODEL, private=True, message="Trained")
    assert set(server.files("model", MODEL)) == {"LICENSE"}


def test_a_push_without_a_token_says_which_variable_to_set(server, trained, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match=r"'me/new' \(logging.hub_model_id\).*HF_TOKEN"):
        hub.push(trained, "me/new", private=True, message="Trained")
    assert not server.repos


def test_a_folder_with_a_token_a_link_or_no_model_is_not_pushed(server, trained, tmp_path):
    (trained / "notes.json").write_text(f'{{"hub_token": "{TOKEN}"}}')
    with pytest.raises(ConfigError, match=r"notes\.json holds an access token") as caught:
        hub.push(trained, "me/new", private=True, message="Trained")
    assert TOKEN not in str(caught.value)
    (trained / "notes.json").unlink()
    (trained / "notes.json").symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="symbolic link"):
        hub.push(trained, "me/new", private=True, message="Trained")
    with pytest.raises(ConfigError, match="no model to push"):
        hub.push(tmp_path / "nothing", "me/new", private=True, message="Trained")
    assert server.requests == []


def test_a_card_the_hub_refuses_is_a_config_error(server, trained):
    (trained / "README.md").write_text("---\n[broken\n---\n")
    with pytest.raises(ConfigError, match=r"refused with HTTP 400 \(metadata is not valid"):
        hub.push(trained, "me/new", private=True, message="Trained")


def test_a_pushed_model_can_be_downloaded(server, trained, tmp_path):
    receipt = hub.push(trained, "me/new", private=True, message="Trained")
    into = hub.download_model("me/new", receipt.commit, tmp_path / "back")
    assert (into / "model.safetensors").read_bytes() == WEIGHTS


# The door is light, and the same server serves `datasets`.


def run(code, env):
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_the_hub_loads_no_client():
    code = "import sys, json, aligntune.hub; print(json.dumps('huggingface_hub' in sys.modules))"
    assert run(code, {}) is False


LOAD = """
import json
from datasets import load_dataset, load_dataset_builder
from aligntune import hub
answers = []
for name, subset, split, kwargs in CASES:
    commit = hub.commit_of(name, "dataset", None)
    load = dict(revision=commit, **kwargs)
    files = load_dataset_builder(name, subset, **load).config.data_files[split]
    names = [file.split("@" + commit + "/")[1] for file in files]
    hub.download_dataset(name, commit, names)
    rows = hub.retrying(lambda: load_dataset(name, subset, split=split, **load), name)
    answers.append([len(rows), rows.column_names, rows[0]])
print(json.dumps(answers))
"""


def load(cases, env):
    return run(f"CASES = {cases!r}\n{LOAD}", env)


@pytest.fixture
def dataset_tree(tmp_path):
    """Small sets in the shapes of the real ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path / "tree" / "datasets"
    pairs = root / "Anthropic" / "hh-rlhf" / "harmless-base"
    pairs.mkdir(parents=True)
    for split, count in (("train", 3), ("test", 2)):
        rows = [json.dumps({"chosen": f"a{i}", "rejected": f"b{i}"}) for i in range(count)]
        (pairs / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    maths = root / "openai" / "gsm8k" / "main"
    maths.mkdir(parents=True)
    for split, count in (("train", 4), ("test", 2)):
        table = pa.table({"question": ["1+1?"] * count, "answer": ["#### 2"] * count})
        pq.write_table(table, maths / f"{split}-00000-of-00001.parquet")
    card = "---\nconfigs:\n- config_name: main\n  data_files:\n"
    card += "  - {split: train, path: main/train-*}\n  - {split: test, path: main/test-*}\n---\n"
    (maths.parent / "README.md").write_text(card)
    demo = root / "llamafactory" / "demo_data"
    demo.mkdir(parents=True)
    (demo / "alpaca_en_demo.json").write_text(json.dumps([{"instruction": "x", "output": "y"}]))
    return root.parent


def test_datasets_loads_gzip_in_a_folder_parquet_by_card_and_json(dataset_tree, tmp_path):
    cases = [
        ("Anthropic/hh-rlhf", None, "train", {"data_dir": "harmless-base"}),
        ("openai/gsm8k", "main", "test", {}),
        ("llamafactory/demo_data", None, "train", {"data_files": "alpaca_en_demo.json"}),
    ]
    with LoopbackHub(dataset_tree) as server:
        server.fail(503, method="GET", path="/resolve/.*parquet")
        pairs, maths, demo = load(cases, server.env(tmp_path))
        assert server.count("GET", r"/resolve/.*test-00000") == 2, "one refusal and one download"
    assert pairs == [3, ["chosen", "rejected"], {"chosen": "a0", "rejected": "b0"}]
    assert maths[:2] == [2, ["question", "answer"]]
    assert demo == [1, ["instruction", "output"], {"instruction": "x", "output": "y"}]


@pytest.mark.skipif(not REAL_TREE.is_dir(), reason="the real data of ../shared/hub is not here")
def test_datasets_loads_the_real_sets(tmp_path):
    cases = [
        ("Anthropic/hh-rlhf", None, "train", {"data_dir": "harmless-base"}),
        ("openai/gsm8k", None, "test", {"data_dir": "main"}),
        ("llamafactory/demo_data", None, "train", {"data_files": "dpo_en_demo.json"}),
        ("google/IFEval", None, "train", {}),
        ("openai/openai_humaneval", None, "test", {}),
    ]
    with LoopbackHub(REAL_TREE) as server:
        answers = load(cases, server.env(tmp_path))
    assert [rows for rows, _, _ in answers] == [1500, 500, 240, 300, 100]
