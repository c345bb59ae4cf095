"""The last stage: the trained model on a hub that speaks the real protocol."""

import json

import pytest
from loopback_hub import TOKEN, LoopbackHub
from transformers import AutoTokenizer

from aligntune import checksums


@pytest.fixture
def hub(tmp_path):
    with LoopbackHub() as started:
        yield started


def test_the_trained_model_is_pushed_once_with_its_card_and_loads_from_there(
    hub, write_config, aligntune, tmp_path
):
    output = tmp_path / "out"
    arguments = (
        "train", "--config", write_config(output),
        "--set", "logging.push_to_hub=true", "--set", "logging.hub_model_id=me/adder",
        "--set", "logging.hub_license=apache-2.0",
    )  # fmt: skip
    for _ in range(2):
        process = aligntune(*arguments, **hub.env(tmp_path))
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    files = hub.files("model", "me/adder")
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= files.keys()
    assert not {name for name in files if name.endswith((".bin", ".pt", ".pth"))}
    check_papers(files, tmp_path / "back")
    card = files["README.md"].decode()
    assert "license: apache-2.0" in card
    assert "## Comparison" in card
    assert "| Decision | `" in card
    assert "arithmetic:" in card
    assert str(tmp_path) not in card
    (receipt,) = (output / "stages").glob("push-*/receipt.json")
    assert json.loads(receipt.read_text())["commit"] == hub.commits("me/adder")[-1]
    (trained,) = (output / "stages").glob("dpo-*/model/model.safetensors")
    assert files["model.safetensors"] == trained.read_bytes()
    for path in output.rglob("*"):
        if path.is_file() and path.stat().st_size < 5_000_000:
            assert TOKEN.encode() not in path.read_bytes(), path


def check_papers(files, folder):
    """That what was pushed is what its own list says, and its bill is about that."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert checksums.check(folder, None).problems == []
    bill = json.loads(files["sbom.cdx.json"])
    parts = {each["name"] for each in bill["metadata"]["component"]["components"]}
    listed = checksums.parse(files["SHA256SUMS"], "pushed").keys()
    assert listed - {"sbom.cdx.json", "README.md", "adapter_config.json"} <= parts


def test_an_adapter_alone_is_pushed_with_the_name_of_its_base(hub, tiny_model, aligntune, tmp_path):
    """With its tokenizer, since nothing else has the chat template that it was trained with."""
    files = {path.name: path for path in tiny_model.iterdir() if path.suffix != ".jinja"}
    commit = hub.commit("model", "me/base", files)
    hub.commit("model", "me/adapter", files)  # a whole model was there before
    hub.repos["model", "me/adapter"].private = True
    config = tmp_path / "run.yaml"
    config.write_text(
        "algo: sft\nmodel: {name_or_path: me/base, precision: fp32, max_seq_length: 96}\n"
        'datasets: [{name: "arithmetic:", params: {count: 24}}]\n'
        "train: {max_steps: 2}\npeft: {r: 4, merge: false}\n"
        "evaluation: {heldout_fraction: 0.2, max_new_tokens: 4, resamples: 100}\n"
        f"logging: {{output_dir: {tmp_path}/out, push_to_hub: true, hub_model_id: me/adapter}}\n"
    )
    process = aligntune("train", "--config", config, **hub.env(tmp_path))
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    pushed = hub.files("model", "me/adapter")
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= pushed.keys()
    assert not {"model.safetensors", "config.json"} & pushed.keys()
    card = pushed["README.md"].decode()
    assert "library_name: peft" in card
    assert "base_model_relation: adapter" in card
    assert "null" not in card
    settings = json.loads(pushed["adapter_config.json"])
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("me/base", commit)
    check_papers(pushed, tmp_path / "back")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "back")
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "1 + 1?"}], tokenize=False)
    assert asked.endswith("User: 1 + 1?")
