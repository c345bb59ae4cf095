"""What goes with a model: its bill of materials, the digest of every file, and who signed it."""

import json
import re
import shutil
import subprocess
from importlib.resources import files

import jsonschema
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from keys import keys
from loopback_hub import TOKEN
from manifests import manifest
from referencing import Registry, Resource

from aligntune import checksums
from aligntune.artifacts import (
    commit,
    digest_of,
    find,
    model_digest,
    partial,
    records,
)
from aligntune.cli_verify import verify
from aligntune.errors import ConfigError, DataError
from aligntune.papers import check_version, enclose, papers
from aligntune.sbom import bill

WEIGHTS = b"weights" * 1000
ENVIRONMENT = {
    "aligntune": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu", "trl": "1.16.0",
    "git": "a" * 40, "lock": "b" * 64,
}  # fmt: skip


@pytest.fixture
def key(tmp_path, monkeypatch):
    """A key pair: (private, public) files, the first of which the environment names."""
    made = keys(tmp_path, "mine")
    monkeypatch.setenv("ALIGNTUNE_SIGNING_KEY", str(made[0]))
    return made


@pytest.fixture
def policy(tmp_path):
    """A trained model with what it came from, as stages leave them, but for the training."""
    stages = tmp_path / "stages"
    base = stage(
        stages, "model", "b0", {"model/model.safetensors": b"base"},
        facts={"source": "me/base", "fingerprint": "commit:" + "c" * 40},
    )  # fmt: skip
    names = ("me/rows", f"https://u:{TOKEN}@rows.example/x.jsonl", "/home/someone/mine.jsonl")
    sources = {
        "datasets[0]": "commit:" + "d" * 40,
        "datasets[1]": "sha256:" + "e" * 64,
        "datasets[2]": "sha256:" + "f" * 64,
    }
    datasets = [{"name": name, "subset": None, "split": "train"} for name in names]
    data = stage(
        stages, "data", "d0", {"train.parquet": b"rows"},
        identity={"config": {"datasets": datasets}, "sources": sources},
        facts={"digests": {"train": "1" * 64}, "sources": [{"kind": "train", "read": 7}]},
    )  # fmt: skip
    model = {"model.safetensors": WEIGHTS, "config.json": b"{}", "chat_template.jinja": b"{{ x }}"}
    return stage(
        stages, "dpo", "p0", {f"model/{name}": content for name, content in model.items()},
        identity={"config": {"seed": 42, "train": {"beta": 0.1}}},
        inputs={"model": base.name, "data": data.name},
    )  # fmt: skip


def stage(stages, kind, key, content, **came):
    out = partial(stages, kind, key)
    for name, data in content.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(data)
    known = {"environment": ENVIRONMENT, "finished": "2026-11-25 22:23:59 UTC"}
    return commit(out, manifest(kind, key, **known, **came))


def valid(text):
    """The bill, if CycloneDX's own schema takes it."""
    place = files("cyclonedx.schema") / "_res"
    schemas = {}
    for name in ("bom-1.6", "spdx", "jsf-0.82"):
        schema = json.loads((place / f"{name}.SNAPSHOT.schema.json").read_text())
        schemas[f"http://cyclonedx.org/schema/{name}.schema.json"] = schema
    known = [(name, Resource.from_contents(schema)) for name, schema in schemas.items()]
    checker = jsonschema.Draft7Validator(
        next(iter(schemas.values())),
        registry=Registry().with_resources(known),
        format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER,
    )
    document = json.loads(text)
    checker.validate(document)
    refs = [part["bom-ref"] for part in document["components"]]
    assert len(refs) == len(set(refs))
    (main, *_) = document["dependencies"]
    assert main["dependsOn"] == refs
    return document


def properties(part):
    return {entry["name"]: entry["value"] for entry in part["properties"]}


def test_the_bill_is_cyclonedx_and_says_what_the_model_was_made_from(policy):
    model = records(policy.path / "model")
    found = valid(bill(policy, model))
    main = found["metadata"]["component"]
    assert main["hashes"] == [{"alg": "SHA-256", "content": digest_of(model)}]
    assert {part["name"]: part["hashes"][0]["content"] for part in main["components"]} == {
        name: file.sha256 for name, file in model.items()
    }
    said = properties(main)
    assert said["aligntune:seed"] == "42"
    assert said["aligntune:code:commit"] == "a" * 40
    assert said["aligntune:lock:sha256"] == "b" * 64
    assert said["aligntune:chat-template:sha256"] == model["chat_template.jinja"].sha256
    assert said["aligntune:rows:data-d0:train:sha256"] == "1" * 64
    assert re.fullmatch("[0-9a-f]{64}", said["aligntune:config:sha256"])
    parts = {part["name"]: part for part in found["components"]}
    assert parts["me/base"]["version"] == "commit:" + "c" * 40
    base = find(policy.path.parent, "model", "b0")
    assert parts["me/base"]["hashes"][0]["content"] == model_digest(base)
    assert parts["me/rows"]["version"] == "commit:" + "d" * 40
    assert properties(parts["me/rows"])["aligntune:rows"] == "7"
    assert parts["torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert found["metadata"]["timestamp"] == "2026-11-25T22:23:59Z"


def test_the_bill_has_no_secret_no_place_and_the_same_bytes_again(policy):
    text = bill(policy, records(policy.path / "model"))
    assert text == bill(policy, records(policy.path / "model"))
    assert TOKEN not in text
    assert "/home" not in text
    assert "mine.jsonl" in text
    assert "rows.example" in text


def test_what_is_enclosed_can_be_checked_with_what_every_machine_has(policy, key, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(policy.path / "model", folder)
    (folder / "README.md").write_text("# card")
    signer = enclose(policy, ["model"], folder, ["README.md", *records(policy.path / "model")])
    valid((folder / "sbom.cdx.json").read_text())
    listed = checksums.parse((folder / "SHA256SUMS").read_bytes(), "here")
    assert listed.keys() == {path.name for path in folder.iterdir()} - {
        "SHA256SUMS", "SHA256SUMS.sig"
    }  # fmt: skip
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True)
    signed = ["-pubin", "-inkey", key[1], "-rawin", "-in", "SHA256SUMS"]
    command = ["openssl", "pkeyutl", "-verify", *signed, "-sigfile", "SHA256SUMS.sig"]
    if shutil.which("openssl"):
        subprocess.run(command, cwd=folder, check=True)
    assert checksums.check(folder, checksums.trusted_key(str(key[1]))).signer == signer


def test_a_model_that_changed_since_its_stage_is_not_enclosed(policy, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(policy.path / "model", folder)
    (folder / "model.safetensors").write_bytes(WEIGHTS[::-1])
    (folder / "more.json").write_text("{}")
    shipped = ["model.safetensors", "more.json"]
    with pytest.raises(DataError, match=r"dpo-p0: model\.safetensors, more\.json changed or app"):
        enclose(policy, ["model"], folder, shipped)


def said(*arguments):
    done = CliRunner().invoke(verify, [str(argument) for argument in arguments])
    return done.exception or done.output


def test_verify_names_every_file_that_differs(policy, key):
    folder = policy.path / "model"
    with papers(policy) as beside:
        shutil.copytree(beside, folder, dirs_exist_ok=True)
    assert "4 files as listed in SHA256SUMS, signed by key" in said(folder)
    (folder / "model.safetensors").write_bytes(b"W" + WEIGHTS[1:])  # of the same size
    (folder / "modeling.py").write_text("import os")
    (folder / "chat_template.jinja").unlink()
    (folder / ".gitattributes").write_text("")
    error = said(folder)
    assert isinstance(error, DataError)
    assert str(error).splitlines()[1:] == [
        "  model.safetensors changed",
        "  chat_template.jinja missing",
        "  modeling.py not listed",
    ]


def test_verify_knows_the_stage_that_made_a_model(policy, tmp_path):
    link = tmp_path / "run"
    link.symlink_to(policy.path / "model")
    for place in (policy.path, policy.path / "model", link):
        assert "3 files as listed in manifest.json, no signature was checked" in said(place)
    (policy.path / "model" / "config.json").write_text("[]")
    for place in (policy.path, link):
        assert "config.json changed" in str(said(place))
    assert "there is nothing to check it against" in str(said(tmp_path))
    assert isinstance(said(tmp_path / "nowhere"), ConfigError)


def test_a_signature_of_another_key_or_none_is_refused(policy, key, tmp_path, monkeypatch):
    _, other = keys(tmp_path, "other")
    folder = policy.path / "model"
    with papers(policy) as beside:
        shutil.copytree(beside, folder, dirs_exist_ok=True)
    assert "is not the signature of key" in str(said(folder, "--key", other))
    monkeypatch.setenv("ALIGNTUNE_TRUSTED_KEY", str(other))
    assert "is not the signature of key" in str(said(folder))
    (folder / "SHA256SUMS.sig").unlink()
    assert "is not signed" in str(said(folder))
    monkeypatch.delenv("ALIGNTUNE_TRUSTED_KEY")
    monkeypatch.delenv("ALIGNTUNE_SIGNING_KEY")
    assert "no signature was checked" in said(folder)


def test_a_list_that_leads_elsewhere_is_refused(tmp_path):
    for name in ("/etc/passwd", "../x", "a/../../x", "a\\nb", ""):
        (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
        with pytest.raises(DataError, match="names no file below it"):
            checksums.check(tmp_path, None)


@pytest.mark.parametrize("what", ["nothing", "rsa", "password", "words"])
def test_what_is_no_key_is_a_config_error_that_shows_none(what, tmp_path, monkeypatch):
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

    file = tmp_path / "key.pem"
    made, lock = Ed25519PrivateKey.generate(), NoEncryption()
    if what == "rsa":
        made = rsa.generate_private_key(65537, 2048)
    if what == "password":
        lock = BestAvailableEncryption(b"x")
    if what != "nothing":
        file.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    if what == "words":
        file.write_text("-----BEGIN PRIVATE KEY-----\nwords\n")
    monkeypatch.setenv("ALIGNTUNE_SIGNING_KEY", str(file))
    with pytest.raises(ConfigError, match=r"ALIGNTUNE_SIGNING_KEY: .*key\.pem") as caught:
        checksums.signing_key()
    if what != "nothing":
        secret = file.read_text().splitlines()[1]
        assert secret not in str(caught.value)


def registered(policy, tmp_path):
    """A place like a registry's, with the model and its papers; the source and what is known."""
    place = tmp_path / "registry"
    shutil.copytree(policy.path / "model", place)
    with papers(policy) as beside:
        shutil.copytree(beside, place, dirs_exist_ok=True)
    known = {"artifact": policy.name, "digest": model_digest(policy)}
    return place, known


def test_a_version_is_promoted_only_if_its_files_are_vouched_for(
    policy, key, tmp_path, monkeypatch
):
    place, known = registered(policy, tmp_path)
    ask = ("m v1", known, str(place), "sqlite://", policy.path.parent)
    assert check_version(*ask) == checksums.key_id(checksums.signing_key().public_key())
    listed = (place / "SHA256SUMS").read_text()
    signature = (place / "SHA256SUMS.sig").read_bytes()
    (place / "SHA256SUMS").write_text(listed.replace("  config.json", "  konfig.json"))
    with pytest.raises(DataError, match="is not the signature"):
        check_version(*ask)
    (place / "SHA256SUMS").write_text(listed)
    with pytest.raises(DataError, match="lists other files than were registered"):
        check_version("m v1", known | {"digest": "0" * 64}, *ask[2:])
    (place / "SHA256SUMS.sig").unlink()
    with pytest.raises(DataError, match="is not signed"):
        check_version(*ask)
    (place / "SHA256SUMS.sig").write_bytes(signature)
    (place / "SHA256SUMS").unlink()
    with pytest.raises(DataError, match=r"without SHA256SUMS.*unset ALIGNTUNE_SIGNING_KEY to"):
        check_version(*ask)
    monkeypatch.delenv("ALIGNTUNE_SIGNING_KEY")
    assert check_version(*ask) is None  # as those of before there were papers


def test_without_a_key_the_stage_itself_is_read_again(policy, tmp_path, caplog):
    place, known = registered(policy, tmp_path)
    ask = ("m v1", known, str(place), "sqlite://", policy.path.parent)
    with caplog.at_level("INFO", "aligntune"):
        assert check_version(*ask) is None
    assert "no signature was asked for" in caplog.text
    (policy.path / "model" / "model.safetensors").write_bytes(WEIGHTS[::-1])
    with pytest.raises(DataError, match="is not as its stage made it"):
        check_version(*ask)


def test_a_downloaded_model_is_checked_and_loses_its_papers(policy, tmp_path):
    place, known = registered(policy, tmp_path)
    checksums.unwrapped(place, "models:/m/1")
    assert digest_of(records(place)) == known["digest"]
    other, _ = registered(policy, tmp_path / "again")
    (other / "config.json").write_text("[]")
    with pytest.raises(DataError, match=r"models:/m/1: config\.json changed"):
        checksums.unwrapped(other, "models:/m/1")
