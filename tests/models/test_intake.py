"""Hostile, broken and mistaken model directories."""

import json
import shutil

import pytest

from aligntune.checksums import PAPERS
from aligntune.errors import ConfigError
from aligntune.models.intake import check, used_files


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A copy of the tiny model to spoil."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder, *words, trust=False):
    with pytest.raises(ConfigError) as caught:
        check(folder, trust_remote_code=trust)
    for word in words:
        assert word in str(caught.value)


def test_a_plain_model_passes_whole(folder):
    assert check(folder, trust_remote_code=False) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "w.pth", "w.pkl", "w.ckpt"])
def test_pickled_weights_alone_are_refused_by_name(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(b"x")
    (folder / name).write_bytes(b"pickled weights")
    refused(folder, name, "convert to safetensors")


def test_pickled_files_beside_safetensors_are_left_where_they_are(folder):
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "tf_model.h5"):
        (folder / name).write_bytes(b"x")
    used = check(folder, trust_remote_code=False)
    assert not any(name.endswith((".bin", ".pt", ".h5")) for name in used)


def test_a_pickle_that_calls_itself_safetensors_is_refused(folder):
    import pickle

    (folder / "model.safetensors").write_bytes(pickle.dumps({"weight": [1.0] * 100}))
    refused(folder, "model.safetensors", "safetensors file")


def test_cut_off_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, "model.safetensors", "get the file again")


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "no model.safetensors")


def test_code_needs_trust(folder):
    (folder / "modeling_evil.py").write_text("")
    refused(folder, "modeling_evil.py", "trust_remote_code")
    assert "modeling_evil.py" in check(folder, trust_remote_code=True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("depth", [0, 2])
def test_auto_map_needs_trust_in_any_json_at_any_depth(folder, name, depth):
    value = {"auto_map": {"AutoModel": "evil.Model"}}
    for _ in range(depth):
        value = {"nested": [value]}
    edit(folder / name, **value)
    refused(folder, name, "auto_map")
    check(folder, trust_remote_code=True)


def test_auto_map_is_a_fine_token(folder):
    (folder / "vocab.json").write_text('{"auto_map": 7, "vocab_file": 8}')
    assert "vocab.json" in check(folder, trust_remote_code=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation_internal": "eager"},
        {"_experts_implementation_internal": "x"},
        {"attn_implementation": "evil/kernels"},
        {"text_config": {"_attn_implementation": "evil/kernels:run"}},
    ],
)
def test_kernels_from_elsewhere_are_refused_even_with_trust(folder, changes):
    edit(folder / "config.json", **changes)
    refused(folder, "config.json", "implementation", trust=True)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("tokenizer_config.json", "vocab_file", "/etc/passwd"),
        ("tokenizer_config.json", "tokenizer_file", "../../secret.json"),
        ("tokenizer_config.json", "merges_file", "a/../../b"),
        ("tokenizer_config.json", "vocab_file", "..\\..\\secret"),
        ("tokenizer_config.json", "vocab_file", "C:\\secret"),
        ("tokenizer_config.json", "fast_tokenizer_files", ["tokenizer.json", "/etc/passwd"]),
        ("config.json", "transformers_weights", "/tmp/evil.safetensors"),
        ("config.json", "nested", {"spm_file": ["/etc/passwd"]}),
    ],
)
def test_paths_out_of_the_model_are_refused_by_file_and_key(folder, file, key, value):
    edit(folder / file, **{key: value})
    name = "spm_file" if key == "nested" else key
    refused(folder, file, name, trust=True)


def test_where_a_model_was_once_trained_is_no_threat(folder):
    edit(folder / "config.json", _name_or_path="/home/someone/checkpoint-100")
    edit(folder / "tokenizer_config.json", name_or_path="../base", vocab_file="vocab.json")
    check(folder, trust_remote_code=False)


@pytest.mark.parametrize("content", ["{", "[]", "\xff", "[" * 100_000, '{"a": NaN'])
def test_broken_json_is_refused_by_name(folder, content):
    (folder / "generation_config.json").write_text(content, encoding="latin-1")
    refused(folder, "generation_config.json")


def test_deeply_nested_json_does_not_exhaust_the_stack(folder):
    deep = '{"vocab_file":' * 800 + '"/etc/passwd"' + "}" * 800
    (folder / "generation_config.json").write_text(deep)
    refused(folder, "vocab_file")


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    secret = tmp_path / "id_rsa"
    secret.write_text("secret")
    (folder / "LICENSE").symlink_to(secret)
    refused(folder, "LICENSE", str(secret))


def test_the_links_of_a_hub_cache_are_followed(folder, tmp_path):
    repository = tmp_path / "models--owner--name"
    snapshot, blobs = repository / "snapshots" / ("a" * 40), repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        shutil.move(path, blobs / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert "model.safetensors" in check(snapshot, trust_remote_code=False)


def sharded(folder, **extra):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model-00001-of-00001.safetensors")
    shards = dict.fromkeys(weights, "model-00001-of-00001.safetensors") | extra
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def test_shards_are_used_and_other_safetensors_are_not(folder):
    sharded(folder)
    shutil.copy(folder / "model-00001-of-00001.safetensors", folder / "consolidated.safetensors")
    used = check(folder, trust_remote_code=False)
    assert {"model.safetensors.index.json", "model-00001-of-00001.safetensors"} <= set(used)
    assert "consolidated.safetensors" not in used


def test_a_missing_shard_is_named(folder):
    sharded(folder, last="model-00002-of-00002.safetensors")
    refused(folder, "model-00002-of-00002.safetensors")


@pytest.mark.parametrize("shard", ["../other.safetensors", "/x.safetensors", "w.bin", 3])
def test_an_index_cannot_point_elsewhere(folder, shard):
    (folder.parent / "other.safetensors").write_bytes(b"private")
    sharded(folder, evil=shard)
    refused(folder, "index.json", repr(shard), "do not use this model")


def test_an_adapter_alone_is_no_model(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")
    refused(folder, "LoRA adapter")


def test_an_adapter_beside_whole_weights_is_left_out(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
    assert "adapter_config.json" not in used_files(folder)


def test_the_papers_of_a_model_are_not_those_of_what_is_made_from_it(folder):
    before = used_files(folder)
    for name in PAPERS:
        (folder / name).write_text("{}")
    assert used_files(folder) == before


def test_the_folder_around_a_model_hints_at_the_model(folder):
    refused(folder.parent, f"did you mean {folder}")
