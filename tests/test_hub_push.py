"""Pushes to a hub on 127.0.0.1: one commit, nothing private, once however often it is tried."""

import pytest
from loopback_hub import TOKEN

from aligntune import hub
from aligntune.errors import ConfigError, ServiceError

MODEL = "me/tiny"
WEIGHTS = bytes(range(256)) * 5000


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
        "optimizer.safetensors": b"moments",
        "rng_state.pth": b"pickle",
        "policy.pt": b"pickle",
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


def test_a_push_is_one_commit_of_the_model_and_nothing_private(hub_server, trained):
    receipt = hub.push(trained, "me/new", private=True, message="Trained")
    pushed = hub_server.files("model", "me/new")
    assert set(pushed) - {".gitattributes"} == {"model.safetensors", "config.json", "README.md"}
    assert pushed["model.safetensors"] == WEIGHTS
    assert len(hub_server.commits("me/new")) == 2
    assert receipt.commit == hub_server.commits("me/new")[-1]
    assert receipt.url == f"{hub_server.url}/me/new/tree/{receipt.commit}"
    assert (receipt.repo_id, receipt.files) == ("me/new", 3)
    assert hub_server.repos["model", "me/new"].private


def test_pushing_the_same_again_makes_no_commit(hub_server, trained):
    first = hub.push(trained, "me/new", private=True, message="Trained")
    hub_server.requests.clear()
    assert hub.push(trained, "me/new", private=True, message="Again") == first
    assert hub_server.count("POST", "/commit/") == 0


def test_a_push_replaces_older_weights_and_leaves_other_files(hub_server, trained):
    older = {
        "model-00001-of-00002.safetensors": b"x",
        "model.safetensors.index.json": b"{}",
        "adapter_config.json": b"{}",
        "SHA256SUMS.sig": b"x" * 64,
    }
    hub_server.commit("model", MODEL, {**older, "pytorch_model.bin": b"x", "LICENSE": b"MIT"})
    hub.push(trained, MODEL, private=False, message="Trained")
    assert set(hub_server.files("model", MODEL)) == {
        *("model.safetensors", "config.json", "README.md", "LICENSE")
    }
    assert len(hub_server.commits(MODEL)) == 2


@pytest.mark.parametrize("fault", [503, "lost"])
@pytest.mark.parametrize("path", ["/repos/create", "/preupload/", "/lfs/objects", "/commit/"])
def test_an_interrupted_push_is_repeated_and_still_one_commit(hub_server, trained, fault, path):
    hub_server.fail(fault, path=path)
    receipt = hub.push(trained, "me/new", private=True, message="Trained")
    assert hub_server.commits("me/new")[1:] == [receipt.commit]
    assert hub_server.files("model", "me/new")["model.safetensors"] == WEIGHTS


def test_a_push_that_lost_a_race_starts_over_from_the_new_main(hub_server, trained, monkeypatch):
    hub.push(trained, "me/new", private=True, message="Trained")
    (trained / "config.json").write_text('{"a": 1}')
    take = hub_server.take_fault
    other = {"NOTES.txt": b"x", "model-00001-of-00002.safetensors": b"someone else's"}

    def race(method, path):
        if "/preupload/" in path and len(hub_server.commits("me/new")) == 2:
            hub_server.commit("model", "me/new", other)
        return take(method, path)

    monkeypatch.setattr(hub_server, "take_fault", race)
    hub.push(trained, "me/new", private=True, message="Trained more")
    assert len(hub_server.commits("me/new")) == 4
    assert set(hub_server.files("model", "me/new")) == {
        *(".gitattributes", "NOTES.txt", "model.safetensors", "config.json", "README.md")
    }


def test_a_commit_that_lacks_a_file_is_reported(hub_server, trained, monkeypatch):
    from loopback_store import Repo

    add = Repo.add

    def forget(repo, tree, message):
        return add(repo, {n: blob for n, blob in tree.items() if n != "config.json"}, message)

    monkeypatch.setattr(Repo, "add", forget)
    with pytest.raises(ServiceError, match=r"does not hold 'config\.json' as it was sent"):
        hub.push(trained, "me/new", private=True, message="Trained")


def test_a_private_push_never_goes_to_a_public_repository(hub_server, trained):
    hub_server.commit("model", MODEL, {"LICENSE": b"MIT"})
    with pytest.raises(ConfigError, match=r"is public, but logging\.hub_private is true"):
        hub.push(trained, MODEL, private=True, message="Trained")
    assert set(hub_server.files("model", MODEL)) == {"LICENSE"}


def test_a_push_without_a_token_says_which_variable_to_set(hub_server, trained, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match=r"'me/new' \(logging.hub_model_id\).*HF_TOKEN"):
        hub.push(trained, "me/new", private=True, message="Trained")
    assert not hub_server.repos


def test_a_folder_with_a_token_a_link_or_no_model_is_not_pushed(hub_server, trained, tmp_path):
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
    assert hub_server.requests == []


def test_a_card_the_hub_refuses_is_a_config_error(hub_server, trained):
    (trained / "README.md").write_text("---\n[broken\n---\n")
    with pytest.raises(ConfigError, match=r"refused with HTTP 400 \(metadata is not valid"):
        hub.push(trained, "me/new", private=True, message="Trained")


def test_a_pushed_model_can_be_downloaded(hub_server, trained, tmp_path):
    receipt = hub.push(trained, "me/new", private=True, message="Trained")
    into = hub.download_model("me/new", receipt.commit, tmp_path / "back")
    assert (into / "model.safetensors").read_bytes() == WEIGHTS


def test_a_push_on_which_the_hub_goes_silent_ends_too(hub_server, trained, monkeypatch):
    monkeypatch.setenv("ALIGNTUNE_HUB_BUDGET", "0.4")
    hub_server.fail("stall", path="/repos/create", times=1000)
    with pytest.raises(ServiceError, match="Timeout"):
        hub.push(trained, "me/new", private=True, message="Trained")
